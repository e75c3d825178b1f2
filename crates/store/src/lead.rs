//! The leader's lease: one row, by the database's clock alone.
//!
//! As in River's elector: each leadership is a term that the database numbers; renewing and resigning
//! are of one term exactly; what a holder believes is counted from before it asked.

use std::time::Duration;

use tokio::time::Instant;

use crate::database::{Arg, Dialect, Link};
use crate::{LeadError, Lease, Term};

/// The part of a lease on which its holder does not rely: one in so many.
const MARGIN: u32 = 10;

/// What somebody wants of the lease.
#[derive(Debug)]
pub(crate) enum Wish {
    Lead { holder: String, ttl: Duration },
    Renew(Lease),
    Resign(Lease),
}

impl Wish {
    /// Asks once. The lease as it is then, or why it is not to be had.
    pub(crate) async fn ask(
        &self,
        link: &mut Link,
        dialect: Dialect,
    ) -> Result<Result<Lease, LeadError>, sqlx::Error> {
        match self {
            Self::Lead { holder, ttl } => lead(link, dialect, holder, *ttl).await,
            Self::Renew(lease) => renew(link, dialect, lease).await,
            Self::Resign(lease) => resign(link, lease).await,
        }
    }
}

async fn lead(
    link: &mut Link,
    dialect: Dialect,
    holder: &str,
    ttl: Duration,
) -> Result<Result<Lease, LeadError>, sqlx::Error> {
    let now = dialect.now_ms();
    let asked = Instant::now();
    let sql = format!(
        "UPDATE leadership SET term = term + 1, holder = $1, until_ms = {now} + $2 \
         WHERE holder = $1 OR until_ms <= {now} RETURNING term"
    );
    let args = [Arg::Text(holder), Arg::Int(milliseconds(ttl))];
    if let Some(row) = link.row(&sql, &args).await? {
        let term = Term(row.int(0)?.unsigned_abs());
        return Ok(Ok(lease(term, holder, ttl, asked)));
    }
    let sql = "SELECT holder, until_ms FROM leadership";
    let row = link.row(sql, &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(Err(LeadError::Held {
        holder: row.text(0)?.into(),
        until_ms: row.int(1)?.unsigned_abs(),
    }))
}

async fn renew(
    link: &mut Link,
    dialect: Dialect,
    before: &Lease,
) -> Result<Result<Lease, LeadError>, sqlx::Error> {
    let now = dialect.now_ms();
    let asked = Instant::now();
    let sql = format!("UPDATE leadership SET until_ms = {now} + $1 WHERE term = $2");
    let args = [
        Arg::Int(milliseconds(before.ttl)),
        Arg::Int(before.term.as_stored()),
    ];
    Ok(match link.run(&sql, &args).await? {
        0 => Err(LeadError::Lost { term: before.term }),
        _ => Ok(lease(before.term, &before.holder, before.ttl, asked)),
    })
}

/// The term is over then for its former holder as well.
async fn resign(link: &mut Link, lease: &Lease) -> Result<Result<Lease, LeadError>, sqlx::Error> {
    let sql = "UPDATE leadership SET term = term + 1, holder = '', until_ms = 0 WHERE term = $1";
    let term = lease.term;
    Ok(match link.run(sql, &[Arg::Int(term.as_stored())]).await? {
        0 => Err(LeadError::Lost { term }),
        _ => Ok(Lease {
            trusted_until: Instant::now(),
            ..lease.clone()
        }),
    })
}

fn lease(term: Term, holder: &str, ttl: Duration, asked: Instant) -> Lease {
    Lease {
        term,
        holder: holder.into(),
        ttl,
        trusted_until: asked + (ttl - ttl / MARGIN),
    }
}

fn milliseconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).expect("no longer than a century")
}
