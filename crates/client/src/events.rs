//! The controller's history, as pages and as a stream that survives broken connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use api::event::Event;
use api::job::{JobId, Page};
use reqwest::{Method, Response};
use tokio::time::Sleep;

use crate::backoff::dice;
use crate::call::{Call, Repeat};
use crate::connection::{Client, Failure, Tries};
use crate::error::{Error, Strange};
use crate::sse::Parser;

/// A stream without even a comment for so long is taken for broken.
const SILENT: Duration = Duration::from_secs(60);

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only later ones than this sequence number; `None`: from the first.
    pub after: Option<u64>,
    pub job: Option<JobId>,
    /// Id of a node.
    pub node: Option<String>,
}

impl Client {
    fn events_call(&self, filter: &EventFilter) -> Result<Call, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "events"])?
            .query("job", filter.job)
            .query("node", filter.node.as_deref());
        Ok(call)
    }

    /// A page of events.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn events(
        &self,
        filter: &EventFilter,
        limit: Option<u32>,
    ) -> Result<Page<Event>, Error> {
        let call = self
            .events_call(filter)?
            .query("after", filter.after)
            .query("limit", limit);
        self.json(call).await
    }

    /// Events from `filter.after` on, and those that will be. Connects on the first
    /// [`EventStream::next`].
    #[must_use]
    pub fn follow_events(&self, filter: EventFilter) -> EventStream {
        EventStream {
            client: self.clone(),
            filter,
            tries: Tries::new(Repeat::Safe),
            ready: VecDeque::new(),
            state: State::Begin,
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

enum State {
    Begin,
    Pause(Pin<Box<Sleep>>),
    Connecting(Connecting),
    Open(Box<(Response, Parser)>),
}

/// Events as they happen, each once and in their order, over as many connections as it takes.
pub struct EventStream {
    client: Client,
    filter: EventFilter,
    tries: Tries,
    ready: VecDeque<Event>,
    state: State,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// The next event, however long it takes. May be dropped while it waits, and loses nothing.
    ///
    /// # Errors
    /// [`Error`] when the controller refuses, or cannot be reached for half a minute.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Err(failure) = self.step().await {
                self.state = State::Begin;
                let pause = self.tries.next(failure)?;
                self.state = State::Pause(Box::pin(tokio::time::sleep(pause)));
            }
        }
    }

    /// Goes one step on. What waits lies in `self.state`, so that nothing is lost with this future.
    async fn step(&mut self) -> Result<(), Failure> {
        match &mut self.state {
            State::Begin => {
                if self.tries.are_fresh() {
                    self.tries.reset();
                }
                self.state = State::Connecting(self.connect()?);
            }
            State::Pause(pause) => {
                pause.await;
                self.state = State::Begin;
            }
            State::Connecting(connecting) => {
                let response = connecting.await?;
                let parser = Parser::default();
                self.state = State::Open(Box::new((response, parser)));
            }
            State::Open(open) => {
                let (response, parser) = &mut **open;
                let name = "GET /v1/events";
                let chunk = tokio::time::timeout(SILENT, response.chunk()).await;
                let chunk = chunk.map_err(|_| Failure::silent(name, SILENT))?;
                let chunk = chunk.map_err(|source| self.client.unreachable(source))?;
                // an end without an error: the controller goes down, or its patience is over
                let Some(chunk) = chunk else {
                    self.state = State::Pause(Box::pin(tokio::time::sleep(Duration::from_millis(
                        u64::from(dice() % 500),
                    ))));
                    return Ok(());
                };
                self.tries.reset();
                let strange = |source| {
                    Failure::final_of(Error::Protocol {
                        call: name.to_owned(),
                        source,
                    })
                };
                let fed = parser.feed(&chunk);
                fed.map_err(|error| strange(Strange::Events(error)))?;
                while let Some(message) = parser.take() {
                    let event: Event = serde_json::from_str(&message.data)
                        .map_err(|error| strange(Strange::Json(error)))?;
                    // one that came twice is no news
                    if self.filter.after.is_none_or(|after| event.seq > after) {
                        self.filter.after = Some(event.seq);
                        self.ready.push_back(event);
                    }
                }
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connecting, Failure> {
        let call = self
            .client
            .events_call(&self.filter)
            .map_err(Failure::final_of)?
            .header("accept", "text/event-stream");
        // both: a proxy or a server may know but one
        let call = match self.filter.after {
            Some(after) => call
                .query("after", Some(after))
                .header("last-event-id", after.to_string()),
            None => call,
        };
        let client = self.client.clone();
        Ok(Box::pin(async move {
            let response = client.send_once(&call).await?;
            let kind = response.headers().get("content-type");
            let kind = kind.and_then(|value| value.to_str().ok());
            let kind = kind.unwrap_or_default();
            if !kind.starts_with("text/event-stream") {
                return Err(Failure::final_of(Error::Protocol {
                    call: call.name(),
                    source: Strange::ContentType(kind.to_owned()),
                }));
            }
            Ok(response)
        }))
    }
}
