//! Nodes and their tunnels.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Open, OpenTunnel, unit};

/// A node's state, without its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FleetState {
    Ready,
    Draining,
    Quarantined,
    Offline,
    Unfit,
}

impl FleetState {
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Draining,
        Self::Quarantined,
        Self::Offline,
        Self::Unfit,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Offline => "offline",
            Self::Unfit => "unfit",
        }
    }
}

impl From<&api::fleet::NodeState> for FleetState {
    fn from(state: &api::fleet::NodeState) -> Self {
        use api::fleet::NodeState;
        match state {
            NodeState::Ready => Self::Ready,
            NodeState::Draining => Self::Draining,
            NodeState::Quarantined { .. } => Self::Quarantined,
            NodeState::Offline => Self::Offline,
            NodeState::Unfit { .. } => Self::Unfit,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

const RECEIVED: Direction = Direction {
    direction: "received",
};
const SENT: Direction = Direction { direction: "sent" };

#[derive(Debug)]
pub(super) struct Fleet {
    nodes: Family<State, Gauge>,
    pending: Gauge,
    messages: Family<Direction, Counter>,
    tunnels: Gauge,
    opened: Counter,
    closed: Counter,
}

impl Fleet {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let fleet = Self {
            nodes: Family::default(),
            pending: Gauge::default(),
            messages: Family::default(),
            tunnels: Gauge::default(),
            opened: Counter::default(),
            closed: Counter::default(),
        };
        for state in FleetState::ALL {
            fleet.nodes(state, 0);
        }
        for direction in [RECEIVED, SENT] {
            drop(fleet.messages.get_or_create(&direction));
        }
        registry.register_with_unit(
            "fleet",
            "Nodes that are enrolled, by state",
            unit("nodes"),
            fleet.nodes.clone(),
        );
        registry.register_with_unit(
            "fleet_pending",
            "Machines that wait for approval",
            unit("nodes"),
            fleet.pending.clone(),
        );
        registry.register_with_unit(
            "control",
            "Messages on the control streams of all nodes",
            unit("messages"),
            fleet.messages.clone(),
        );
        registry.register_with_unit(
            "tunnel",
            "Nodes that are connected now",
            unit("connections"),
            fleet.tunnels.clone(),
        );
        registry.register_with_unit(
            "tunnel_opened",
            "Connections that nodes have made",
            unit("connections"),
            fleet.opened.clone(),
        );
        registry.register_with_unit(
            "tunnel_closed",
            "Connections of nodes that have ended",
            unit("connections"),
            fleet.closed.clone(),
        );
        fleet
    }

    pub(super) fn nodes(&self, state: FleetState, count: usize) {
        let state = State {
            state: state.word(),
        };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.nodes.get_or_create(&state).set(count);
    }

    pub(super) fn pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn received(&self, messages: u64) {
        self.messages.get_or_create(&RECEIVED).inc_by(messages);
    }

    pub(super) fn sent(&self, messages: u64) {
        self.messages.get_or_create(&SENT).inc_by(messages);
    }

    pub(super) fn tunnel(&self) -> OpenTunnel {
        self.opened.inc();
        OpenTunnel {
            _open: Open::new(&self.tunnels),
            closed: self.closed.clone(),
        }
    }
}
