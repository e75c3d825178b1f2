//! Which nodes will do for a request, whatever they are doing.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::neighbours::Neighbours;
use crate::node::{Health, Node, NodeId};
use crate::request::{Part, Request, Selector};

/// Nodes that will do for each part of a request, in the order of their numbers.
pub(crate) type Suitable<'a> = Vec<Rc<Vec<(NodeId, &'a Node)>>>;

/// Some nodes, and those of them that will do for each part that was asked for.
#[derive(Debug)]
pub(crate) struct Catalogue<'a> {
    nodes: Vec<(NodeId, &'a Node)>,
    known: BTreeMap<Place<'a>, Rc<Vec<(NodeId, &'a Node)>>>,
}

/// A part, whatever its count.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    cpus: u32,
    memory: u64,
    devices: &'a [String],
    selector: &'a Selector,
}

impl<'a> Catalogue<'a> {
    pub(crate) fn of(nodes: impl Iterator<Item = (NodeId, &'a Node)>) -> Self {
        Self {
            nodes: nodes.collect(),
            known: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Looks up, for each part, what it looked up before.
    pub(crate) fn suitable(&mut self, request: &'a Request) -> Suitable<'a> {
        let parts = request.parts.iter();
        parts
            .map(|part| {
                let place = Place {
                    cpus: part.cpus,
                    memory: part.memory,
                    devices: &part.devices,
                    selector: &part.selector,
                };
                let nodes = self.known.entry(place).or_insert_with(|| {
                    let nodes = self.nodes.iter().copied();
                    Rc::new(nodes.filter(|(_, node)| will_do(part, node)).collect())
                });
                Rc::clone(nodes)
            })
            .collect()
    }
}

/// Whether a node matches, and is large enough when idle.
fn will_do(part: &Part, node: &Node) -> bool {
    part.selector.matches(node) && Neighbours::default().room(part, node).is_some()
}

/// Those that take work, by their numbers.
pub(crate) fn ready(nodes: &[Node]) -> impl Iterator<Item = (NodeId, &Node)> {
    let all = (0..).map(NodeId).zip(nodes);
    all.filter(|(_, node)| node.health == Health::Ready)
}
