//! Prepared changes as statements, inside a transaction that somebody else begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::Refusal;
use crate::database::{Arg, Dialect, Fault, Link};
use crate::prepare::{EventRow, JobRow, Prepared, Step, SubmissionRow};

/// Rows of one statement at most.
const ROWS: usize = 128;

/// Changes cannot be made.
#[derive(Debug)]
pub(crate) enum ApplyError {
    /// One of them contradicts what is stored.
    Refused(Refusal),
    Failed(Fault),
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A table that is written many rows at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Job,
    JobNode,
    Submission,
    Event,
}

impl Table {
    fn insert(self) -> &'static str {
        match self {
            Self::Job => {
                "INSERT INTO job (id, submitter, queue, state, submitted_ms, ended_ms, body) VALUES "
            }
            Self::JobNode => "INSERT INTO job_node (node, job) VALUES ",
            Self::Submission => {
                "INSERT INTO submission (submitter, name, fingerprint, jobs, at_ms) VALUES "
            }
            Self::Event => "INSERT INTO event (seq, at_ms, kind, job, node, actor, body) VALUES ",
        }
    }

    fn columns(self) -> usize {
        match self {
            Self::Job | Self::Event => 7,
            Self::JobNode => 2,
            Self::Submission => 5,
        }
    }

    fn on_conflict(self) -> &'static str {
        match self {
            Self::Job => {
                " ON CONFLICT (id) DO UPDATE SET submitter = excluded.submitter, \
                 queue = excluded.queue, state = excluded.state, \
                 submitted_ms = excluded.submitted_ms, ended_ms = excluded.ended_ms, \
                 body = excluded.body"
            }
            Self::JobNode | Self::Submission => " ON CONFLICT DO NOTHING",
            Self::Event => "",
        }
    }
}

/// Writes changes; keeps the texts of its statements.
#[derive(Debug)]
pub(crate) struct Applier {
    dialect: Dialect,
    inserts: BTreeMap<(Table, usize), Arc<str>>,
}

impl Applier {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            inserts: BTreeMap::new(),
        }
    }

    /// Makes the changes of all calls, the first event getting the number after `last_event`.
    pub(crate) async fn apply(
        &mut self,
        link: &mut Link,
        calls: &[&Prepared],
        last_event: i64,
    ) -> Result<(), ApplyError> {
        self.jobs(link, calls).await?;
        for step in calls.iter().flat_map(|call| &call.steps) {
            run_step(link, step).await?;
        }
        self.submissions(link, calls).await?;
        self.events(link, calls, last_event).await
    }

    /// Of several versions of a job the last one counts; of nodes, those of all.
    async fn jobs(&mut self, link: &mut Link, calls: &[&Prepared]) -> Result<(), ApplyError> {
        let versions = || calls.iter().flat_map(|call| &call.jobs);
        let jobs: BTreeMap<i64, &JobRow> = versions().map(|job| (job.id, job)).collect();
        let jobs: Vec<&JobRow> = jobs.into_values().collect();
        self.insert(link, Table::Job, &jobs, |job, args| {
            args.extend([
                Arg::Int(job.id),
                Arg::Text(&job.submitter),
                Arg::Text(&job.queue),
                Arg::Text(job.state),
                Arg::Int(job.submitted_ms),
                Arg::MaybeInt(job.ended_ms),
                Arg::Text(&job.body),
            ]);
        })
        .await?;
        let nodes: BTreeSet<(&str, i64)> = versions()
            .flat_map(|job| job.nodes.iter().map(|node| (node.as_str(), job.id)))
            .collect();
        let nodes: Vec<(&str, i64)> = nodes.into_iter().collect();
        self.insert(link, Table::JobNode, &nodes, |&(node, job), args| {
            args.extend([Arg::Text(node), Arg::Int(job)]);
        })
        .await?;
        Ok(())
    }

    async fn submissions(
        &mut self,
        link: &mut Link,
        calls: &[&Prepared],
    ) -> Result<(), ApplyError> {
        let rows: Vec<&SubmissionRow> = calls.iter().flat_map(|call| &call.submissions).collect();
        let written = self
            .insert(link, Table::Submission, &rows, |row, args| {
                args.extend([
                    Arg::Text(&row.submitter),
                    Arg::Text(&row.name),
                    Arg::Text(&row.fingerprint),
                    Arg::Text(&row.jobs),
                    Arg::Int(row.at_ms),
                ]);
            })
            .await?;
        if written != rows.len() as u64 {
            return Err(taken_key(link, &rows).await?);
        }
        Ok(())
    }

    async fn events(
        &mut self,
        link: &mut Link,
        calls: &[&Prepared],
        last_event: i64,
    ) -> Result<(), ApplyError> {
        let events = calls.iter().flat_map(|call| &call.events);
        let rows: Vec<(i64, &EventRow)> = (last_event + 1..).zip(events).collect();
        self.insert(link, Table::Event, &rows, |(seq, event), args| {
            args.extend([
                Arg::Int(*seq),
                Arg::Int(event.at_ms),
                Arg::Text(&event.kind),
                Arg::MaybeInt(event.job),
                Arg::MaybeText(event.node.as_deref()),
                Arg::MaybeText(event.actor.as_deref()),
                Arg::MaybeText(event.body.as_deref()),
            ]);
        })
        .await?;
        Ok(())
    }

    /// In statements of as many rows as there are powers of two in their number: few enough texts for
    /// each to stay prepared.
    async fn insert<'a, T>(
        &mut self,
        link: &mut Link,
        table: Table,
        rows: &'a [T],
        bind: impl Fn(&'a T, &mut Vec<Arg<'a>>),
    ) -> Result<u64, sqlx::Error> {
        let mut written = 0;
        let mut rest = rows;
        let mut args = Vec::new();
        while !rest.is_empty() {
            let count = ROWS.min(1 << rest.len().ilog2());
            let (now, later) = rest.split_at(count);
            args.clear();
            now.iter().for_each(|row| bind(row, &mut args));
            let sql = self.text(table, count);
            written += link.run(&sql, &args).await?;
            rest = later;
        }
        Ok(written)
    }

    fn text(&mut self, table: Table, rows: usize) -> Arc<str> {
        let dialect = self.dialect;
        let text = self
            .inserts
            .entry((table, rows))
            .or_insert_with(|| insert_text(table, rows, dialect).into());
        Arc::clone(text)
    }
}

fn insert_text(table: Table, rows: usize, dialect: Dialect) -> String {
    let mut sql = String::from(table.insert());
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..table.columns() {
            if column > 0 {
                sql.push_str(", ");
            }
            match dialect {
                // numbered ones are looked up one by one there: quadratic
                Dialect::Sqlite => sql.push('?'),
                Dialect::Postgres => {
                    let number = row * table.columns() + column + 1;
                    write!(sql, "${number}").expect("a String takes all");
                }
            }
        }
        sql.push(')');
    }
    sql.push_str(table.on_conflict());
    sql
}

/// Which of these was there already.
async fn taken_key(link: &mut Link, rows: &[&SubmissionRow]) -> Result<ApplyError, sqlx::Error> {
    let mut taken = rows.last();
    for row in rows {
        let sql = "SELECT jobs FROM submission WHERE submitter = $1 AND name = $2";
        let args = [Arg::Text(&row.submitter), Arg::Text(&row.name)];
        let there = link.row(sql, &args).await?;
        let there = there.as_ref().map(|row| row.text(0)).transpose()?;
        if there != Some(row.jobs.as_str()) {
            taken = Some(row);
            break;
        }
    }
    Ok(ApplyError::Refused(Refusal::KeyTaken {
        user: taken.map_or_else(String::new, |row| row.submitter.clone()),
        key: taken.map_or_else(String::new, |row| row.name.clone()),
    }))
}

async fn run_step(link: &mut Link, step: &Step) -> Result<(), ApplyError> {
    match step {
        Step::ForgetSubmissions { before_ms } => {
            let sql = "DELETE FROM submission WHERE at_ms < $1";
            link.run(sql, &[Arg::Int(*before_ms)]).await?;
        }
        Step::Node {
            id,
            name,
            serial,
            body,
        } => {
            let sql = "INSERT INTO node (id, name, serial, body) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
                       serial = excluded.serial, body = excluded.body";
            let args = [
                Arg::Text(id),
                Arg::Text(name),
                Arg::MaybeText(serial.as_deref()),
                Arg::Text(body),
            ];
            link.run(sql, &args).await?;
        }
        Step::NodeRemoved { id } => {
            link.run("DELETE FROM node WHERE id = $1", &[Arg::Text(id)])
                .await?;
        }
        Step::Queue { name, body } => {
            let sql = "INSERT INTO queue (name, body) VALUES ($1, $2) \
                       ON CONFLICT (name) DO UPDATE SET body = excluded.body";
            link.run(sql, &[Arg::Text(name), Arg::Text(body)]).await?;
        }
        Step::QueueRemoved { name } => {
            link.run("DELETE FROM queue WHERE name = $1", &[Arg::Text(name)])
                .await?;
        }
        Step::Token {
            id,
            expires_ms,
            used_by,
            body,
        } => {
            let sql = "INSERT INTO token (id, expires_ms, used_by, body) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (id) DO UPDATE SET expires_ms = excluded.expires_ms, \
                       used_by = excluded.used_by, body = excluded.body \
                       WHERE token.used_by IS NULL OR token.used_by = excluded.used_by";
            let args = [
                Arg::Text(id),
                Arg::Int(*expires_ms),
                Arg::MaybeText(used_by.as_deref()),
                Arg::Text(body),
            ];
            if link.run(sql, &args).await? == 0 {
                return Err(ApplyError::Refused(Refusal::TokenUsed { id: id.clone() }));
            }
        }
        Step::TokenRemoved { id } => {
            link.run("DELETE FROM token WHERE id = $1", &[Arg::Text(id)])
                .await?;
        }
        Step::ForgetTokens { before_ms } => {
            let sql = "DELETE FROM token WHERE expires_ms < $1";
            link.run(sql, &[Arg::Int(*before_ms)]).await?;
        }
        Step::Revoked {
            serial,
            node,
            at_ms,
            expires_ms,
            why,
        } => {
            let sql = "INSERT INTO revocation (serial, node, at_ms, expires_ms, why) \
                       VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let args = [
                Arg::Text(serial),
                Arg::MaybeText(node.as_deref()),
                Arg::Int(*at_ms),
                Arg::Int(*expires_ms),
                Arg::MaybeText(why.as_deref()),
            ];
            link.run(sql, &args).await?;
        }
        Step::ForgetRevocations { before_ms } => {
            let sql = "DELETE FROM revocation WHERE expires_ms < $1";
            link.run(sql, &[Arg::Int(*before_ms)]).await?;
        }
        Step::Setting { name, body } => {
            let sql = "INSERT INTO setting (name, body) VALUES ($1, $2) \
                       ON CONFLICT (name) DO UPDATE SET body = excluded.body";
            link.run(sql, &[Arg::Text(name), Arg::Text(body)]).await?;
        }
        Step::SettingRemoved { name } => {
            link.run("DELETE FROM setting WHERE name = $1", &[Arg::Text(name)])
                .await?;
        }
        Step::Orphan {
            job,
            attempt,
            fence,
            node,
            body,
        } => {
            let sql = "INSERT INTO orphan (job, attempt, fence, node, body) \
                       VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (job, attempt, fence, node) DO UPDATE SET body = excluded.body";
            let args = [
                Arg::Int(*job),
                Arg::Int(*attempt),
                Arg::Int(*fence),
                Arg::Text(node),
                Arg::Text(body),
            ];
            link.run(sql, &args).await?;
        }
    }
    Ok(())
}
