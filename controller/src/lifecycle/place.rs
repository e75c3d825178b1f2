//! From what a job asks for to the places that the scheduler offers, and to the nodes' orders.

use api::fleet::NodeId;
use api::job::{JobId, JobPart, JobRequest, JobState, JobStatus};
use api::work::{Assignment, Key, Order};
use sched::{Offer, Part as Wish, Request, Selector};

use super::attempt::{Attempt, Part, Progress};
use super::{Core, Millis};

/// Seconds that an attempt may take if all of its runs take all of their time.
pub(super) fn longest(request: &JobRequest, overhead_seconds: u64) -> u64 {
    let measure = &request.measure;
    let run = u64::from(request.limits.run_seconds) + overhead_seconds;
    let canaries = 2 * u64::from(measure.canary_seconds);
    let counted = u64::from(measure.repetitions) * u64::from(measure.attempts.max(1));
    let all = counted
        .saturating_mul(run + canaries)
        .saturating_add(u64::from(measure.warmups).saturating_mul(run));
    all.saturating_add(overhead_seconds)
}

impl Core {
    /// Of the request's limit and the queue's, the shorter one; seconds.
    pub(super) fn lease(&self, request: &JobRequest) -> u32 {
        let own = request.limits.total_seconds.map(u64::from);
        let own = own.unwrap_or_else(|| longest(request, self.settings.overhead.as_secs()));
        let queue = self.queues.get(&request.queue);
        let queue = queue.map_or(u64::MAX, |queue| queue.limit_seconds);
        u32::try_from(own.min(queue)).unwrap_or(u32::MAX)
    }

    /// As the scheduler understands it.
    pub(super) fn request(&self, status: &JobStatus) -> Request {
        let request = &status.request;
        let place = &request.place;
        // an id is as good as a name, but the scheduler knows names only
        let node = place.node.as_ref().map(|wanted| {
            let by_id = NodeId::try_from(wanted.clone()).ok();
            let by_id = by_id.and_then(|id| self.nodes.get(&id));
            by_id.map_or_else(|| wanted.clone(), |node| node.row.name.clone())
        });
        Request {
            queue: request.queue.clone(),
            user: status.user.clone(),
            parts: vec![Wish {
                count: place.nodes,
                cpus: place.cpus,
                memory: place.memory_bytes.unwrap_or(0),
                devices: place.devices.clone(),
                selector: Selector {
                    node,
                    class: place.class.clone(),
                    labels: place.labels.clone(),
                    isolated: !place.unisolated,
                    tick: request.measure.tick_mode,
                    ..Selector::default()
                },
            }],
            share: place.share,
            limit: u64::from(self.lease(request)).saturating_mul(1000),
            // how often it is tried is decided here
            attempts: u32::MAX,
        }
    }

    /// Whoever can start is given its places.
    pub(super) fn schedule(&mut self, now: Millis) {
        self.stirred = false;
        for offer in self.sched.schedule(now) {
            self.assign(now, offer);
        }
    }

    fn assign(&mut self, now: Millis, offer: Offer) {
        let id = JobId(offer.attempt.job.0);
        let key = Key {
            job: id,
            attempt: offer.attempt.number,
            fence: offer.attempt.fence,
        };
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let lease_seconds = self.lease(&job.status.request);
        let seats = &self.seats;
        let node = |slot: &sched::Slot| {
            let index = usize::try_from(slot.node.0).ok()?;
            seats.get(index).cloned()
        };
        let slots = offer.slots.into_iter();
        let slots: Vec<_> = slots
            .filter_map(|slot| Some((node(&slot)?, slot)))
            .collect();
        let part = |slot: &sched::Slot| Part {
            cpus: slot.cpus.clone(),
            memory: slot.memory,
            devices: slot.devices.clone(),
            progress: Progress::Sent,
            since_ms: now,
        };
        let attempt = Attempt {
            key,
            assigned_ms: now,
            lease_seconds,
            parts: slots
                .iter()
                .map(|(node, slot)| (node.clone(), part(slot)))
                .collect(),
            fate: None,
        };
        let parts = slots.iter().map(|(node, slot)| JobPart {
            node: node.clone(),
            node_name: self
                .nodes
                .get(node)
                .map(|it| it.row.name.clone())
                .unwrap_or_default(),
            cpus: slot.cpus.to_string(),
            ending: None,
            documents: Vec::new(),
        });
        let parts: Vec<_> = parts.collect();
        let nodes: Vec<NodeId> = attempt.parts.keys().cloned().collect();
        if let Some(job) = self.jobs.get_mut(&id) {
            job.attempt = Some(attempt);
            let status = &mut job.status;
            status.attempts = key.attempt;
            status.fence = Some(key.fence);
            status.parts = parts;
            status.started_ms = None;
            status.reason = None;
        }
        self.enter(now, id, JobState::Assigned);
        for node in nodes {
            self.send_assignment(id, &node);
        }
    }

    /// What a node needs for its part is still on its way there: the time in which it has to accept
    /// begins anew.
    pub fn still_sending(&mut self, now: Millis, node: &NodeId, key: Key) {
        let job = self.jobs.get_mut(&key.job);
        let attempt = job.and_then(|job| job.attempt.as_mut());
        let part = attempt
            .filter(|attempt| attempt.key == key)
            .and_then(|attempt| attempt.parts.get_mut(node));
        if let Some(part) = part.filter(|part| part.progress == Progress::Sent) {
            part.since_ms = now;
        }
    }

    /// What a node is to do for its part. It may be sent again.
    pub(super) fn send_assignment(&mut self, id: JobId, node: &NodeId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(attempt) = &job.attempt else {
            return;
        };
        let Some(part) = attempt.parts.get(node) else {
            return;
        };
        let mut request = job.status.request.clone();
        if let Some(image) = &job.image {
            request.image = Some(image.clone());
        }
        let assignment = Assignment {
            key: attempt.key,
            user: job.status.user.clone(),
            role: job.role.clone(),
            request,
            cpus: part.cpus.clone(),
            devices: part.devices.clone(),
            lease_seconds: attempt.lease_seconds,
            wait_for_begin: attempt.parts.len() > 1,
        };
        self.order(node, Order::Assign(Box::new(assignment)));
    }
}
