//! Questions, each one statement.

use api::event::Event;
use api::fleet::NodeId;
use api::job::{JobId, JobState};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::database::{Arg, Link, Row};
use crate::{
    Digest, EventFilter, JobCount, JobFilter, JobRecord, Order, OrphanRecord, ReadError, Submission,
};

pub(crate) async fn job(link: &mut Link, id: i64) -> Result<Option<JobRecord>, ReadError> {
    let sql = "SELECT id, body FROM job WHERE id = $1";
    let row = link.row(sql, &[Arg::Int(id)]).await?;
    row.as_ref().map(job_of).transpose()
}

pub(crate) async fn jobs(
    link: &mut Link,
    filter: &JobFilter,
    after: Option<i64>,
    limit: u32,
    order: Order,
) -> Result<Vec<JobRecord>, ReadError> {
    let mut query = Conditions::default();
    if !filter.states.is_empty() {
        let states = filter.states.iter().map(|state| Arg::Text(state.as_str()));
        query.one_of("state", states);
    }
    if let Some(user) = &filter.user {
        query.add("submitter =", Arg::Text(user));
    }
    if let Some(queue) = &filter.queue {
        query.add("queue =", Arg::Text(queue));
    }
    if let Some(node) = &filter.node {
        query.add(
            "id IN (SELECT job FROM job_node WHERE node =",
            Arg::Text(node.as_str()),
        );
        query.sql.push(')');
    }
    let (than, direction) = match order {
        Order::OldestFirst => ("id >", "ASC"),
        Order::NewestFirst => ("id <", "DESC"),
    };
    if let Some(after) = after {
        query.add(than, Arg::Int(after));
    }
    // which jobs is decided on the indexes alone; bodies are read of these only
    let limit = query.number(Arg::Int(limit.into()));
    let sql = format!(
        "SELECT id, body FROM job WHERE id IN \
         (SELECT id FROM job {} ORDER BY id {direction} LIMIT {limit}) ORDER BY id {direction}",
        query.sql
    );
    let rows = link.rows(&sql, &query.args).await?;
    rows.iter().map(job_of).collect()
}

pub(crate) async fn counts(link: &mut Link) -> Result<Vec<JobCount>, ReadError> {
    let sql = "SELECT queue, state, count(*) FROM job GROUP BY queue, state ORDER BY queue, state";
    let rows = link.rows(sql, &[]).await?;
    let count = |row: &Row| {
        let state = row.text(1)?;
        Ok(JobCount {
            queue: row.text(0)?.into(),
            state: JobState::parse(state).ok_or_else(|| malformed("state", state))?,
            jobs: row.int(2)?.unsigned_abs(),
        })
    };
    rows.iter().map(count).collect()
}

pub(crate) async fn events(
    link: &mut Link,
    after: i64,
    limit: u32,
    filter: &EventFilter,
) -> Result<Vec<Event>, ReadError> {
    let mut query = Conditions::default();
    query.add("seq >", Arg::Int(after));
    if let Some(JobId(job)) = filter.job {
        // no job has a number that does not fit
        query.add("job =", Arg::Int(i64::try_from(job).unwrap_or(-1)));
    }
    if let Some(node) = &filter.node {
        query.add("node =", Arg::Text(node.as_str()));
    }
    let limit = query.number(Arg::Int(limit.into()));
    let sql = format!(
        "SELECT seq, at_ms, kind, job, node, actor, body FROM event {} ORDER BY seq LIMIT {limit}",
        query.sql
    );
    let rows = link.rows(&sql, &query.args).await?;
    rows.iter().map(event_of).collect()
}

pub(crate) async fn submission(
    link: &mut Link,
    user: &str,
    key: &str,
) -> Result<Option<Submission>, ReadError> {
    let sql = "SELECT fingerprint, jobs, at_ms FROM submission WHERE submitter = $1 AND name = $2";
    let Some(row) = link.row(sql, &[Arg::Text(user), Arg::Text(key)]).await? else {
        return Ok(None);
    };
    Ok(Some(Submission {
        user: user.into(),
        key: key.into(),
        fingerprint: row
            .text(0)?
            .parse::<Digest>()
            .map_err(|_| malformed("submission", key))?,
        jobs: body("submission", key, row.text(1)?)?,
        at_ms: row.int(2)?.unsigned_abs(),
    }))
}

pub(crate) async fn orphans(link: &mut Link, job: i64) -> Result<Vec<OrphanRecord>, ReadError> {
    let sql = "SELECT body FROM orphan WHERE job = $1 ORDER BY attempt, fence, node";
    let rows = link.rows(sql, &[Arg::Int(job)]).await?;
    let orphan = |row: &Row| body("orphaned result of job", &job.to_string(), row.text(0)?);
    rows.iter().map(orphan).collect()
}

/// A row of the job's id and body.
pub(crate) fn job_of(row: &Row) -> Result<JobRecord, ReadError> {
    let text = row.text(1)?;
    serde_json::from_str(text).map_err(|source| ReadError::Malformed {
        what: "job",
        id: row
            .int(0)
            .map_or_else(|e| e.to_string(), |id| id.to_string()),
        source: Some(source),
    })
}

fn event_of(row: &Row) -> Result<Event, ReadError> {
    let seq = row.int(0)?.unsigned_abs();
    let node = row.maybe_text(4)?.map(node_id).transpose()?;
    let data = match row.maybe_text(6)? {
        Some(text) => body("event", &seq.to_string(), text)?,
        None => Value::Null,
    };
    Ok(Event {
        seq,
        at_ms: row.int(1)?.unsigned_abs(),
        kind: row.text(2)?.into(),
        job: row.maybe_int(3)?.map(|id| JobId(id.unsigned_abs())),
        node,
        user: row.maybe_text(5)?.map(String::from),
        data,
    })
}

pub(crate) fn node_id(text: &str) -> Result<NodeId, ReadError> {
    NodeId::try_from(text.to_owned()).map_err(|_| malformed("node", text))
}

/// A record out of its JSON.
pub(crate) fn body<T: DeserializeOwned>(
    what: &'static str,
    id: &str,
    text: &str,
) -> Result<T, ReadError> {
    serde_json::from_str(text).map_err(|source| ReadError::Malformed {
        what,
        id: id.into(),
        source: Some(source),
    })
}

fn malformed(what: &'static str, id: &str) -> ReadError {
    ReadError::Malformed {
        what,
        id: id.into(),
        source: None,
    }
}

/// A `WHERE` that grows, and its arguments.
#[derive(Default)]
struct Conditions<'a> {
    sql: String,
    args: Vec<Arg<'a>>,
}

impl<'a> Conditions<'a> {
    /// `left` and the number of its argument.
    fn add(&mut self, left: &str, arg: Arg<'a>) {
        self.and();
        let number = self.number(arg);
        self.sql.push_str(left);
        self.sql.push(' ');
        self.sql.push_str(&number);
    }

    fn one_of(&mut self, column: &str, args: impl Iterator<Item = Arg<'a>>) {
        self.and();
        let numbers: Vec<String> = args.map(|arg| self.number(arg)).collect();
        self.sql.push_str(column);
        self.sql.push_str(" IN (");
        self.sql.push_str(&numbers.join(", "));
        self.sql.push(')');
    }

    fn and(&mut self) {
        self.sql.push_str(if self.sql.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
    }

    fn number(&mut self, arg: Arg<'a>) -> String {
        self.args.push(arg);
        format!("${}", self.args.len())
    }
}
