//! Everything that a controller starts from, as of one instant.

use std::collections::BTreeMap;

use api::job::JobState;
use serde::de::DeserializeOwned;

use crate::database::{Arg, Dialect, Link, Row};
use crate::read::{body, job_of, node_id};
use crate::{Loaded, ReadError, Revocation};

pub(crate) async fn load(link: &mut Link, dialect: Dialect) -> Result<Loaded, ReadError> {
    link.plain(dialect.begin_reading()).await?;
    let loaded = all(link, dialect).await?;
    link.plain("COMMIT").await?;
    Ok(loaded)
}

async fn all(link: &mut Link, dialect: Dialect) -> Result<Loaded, ReadError> {
    let sql = "SELECT highest_job, highest_fence, last_event FROM leadership";
    let highest = link.row(sql, &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
    let tokens = format!(
        "SELECT id, body FROM token WHERE expires_ms > {} ORDER BY id",
        dialect.now_ms()
    );
    Ok(Loaded {
        jobs: jobs(link).await?,
        nodes: bodies(link, "node", "SELECT id, body FROM node ORDER BY id").await?,
        queues: named(link, "queue", "SELECT name, body FROM queue").await?,
        tokens: bodies(link, "token", &tokens).await?,
        revoked: revoked(link).await?,
        settings: named(link, "setting", "SELECT name, body FROM setting").await?,
        highest_job: highest.int(0)?.unsigned_abs(),
        highest_fence: highest.int(1)?.unsigned_abs(),
        last_event: highest.int(2)?.unsigned_abs(),
    })
}

async fn jobs(link: &mut Link) -> Result<Vec<crate::JobRecord>, ReadError> {
    let unfinished = JobState::ALL.into_iter().filter(|state| !state.is_over());
    let states: Vec<Arg<'_>> = unfinished.map(|state| Arg::Text(state.as_str())).collect();
    let numbers: Vec<String> = (1..=states.len()).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT id, body FROM job WHERE state IN ({}) ORDER BY id",
        numbers.join(", ")
    );
    let rows = link.rows(&sql, &states).await?;
    rows.iter().map(job_of).collect()
}

async fn revoked(link: &mut Link) -> Result<Vec<Revocation>, ReadError> {
    let sql = "SELECT serial, node, at_ms, expires_ms, why FROM revocation ORDER BY serial";
    let rows = link.rows(sql, &[]).await?;
    let revocation = |row: &Row| {
        Ok(Revocation {
            serial: row.text(0)?.into(),
            node: row.maybe_text(1)?.map(node_id).transpose()?,
            at_ms: row.int(2)?.unsigned_abs(),
            expires_ms: row.int(3)?.unsigned_abs(),
            why: row.maybe_text(4)?.map(String::from),
        })
    };
    rows.iter().map(revocation).collect()
}

/// Records of a name and a body.
async fn bodies<T: DeserializeOwned>(
    link: &mut Link,
    what: &'static str,
    sql: &str,
) -> Result<Vec<T>, ReadError> {
    let rows = link.rows(sql, &[]).await?;
    let record = |row: &Row| body(what, row.text(0)?, row.text(1)?);
    rows.iter().map(record).collect()
}

async fn named<T: DeserializeOwned>(
    link: &mut Link,
    what: &'static str,
    sql: &str,
) -> Result<BTreeMap<String, T>, ReadError> {
    let rows = link.rows(sql, &[]).await?;
    let record = |row: &Row| {
        let name = row.text(0)?;
        Ok((name.into(), body(what, name, row.text(1)?)?))
    };
    rows.iter().map(record).collect()
}
