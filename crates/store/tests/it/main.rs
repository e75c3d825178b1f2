//! The store's contract, on SQLite and on a real PostgreSQL.
//!
//! PostgreSQL is Debian's package `postgresql`. One server is started for all tests, as an unprivileged
//! user, on a socket in a directory of its own; it ends, and its directory goes, with this process.

mod contract;
mod crash;
mod full;
mod outage;
mod place;
mod rates;
mod records;
mod server;
mod sqlite;
mod victim;
