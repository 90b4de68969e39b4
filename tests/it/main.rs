//! The promises of the whole daemon, kept by real processes of the real binary.
//!
//! Each test makes its own federation in its own folder with its own ports, awaits what it promises with a deadline, and
//! leaves nothing: see [`harness`].

#![allow(clippy::unwrap_used)]

mod access;
mod admin;
mod alerts;
mod backup;
mod bad_input;
mod balance;
mod bundle;
mod bus;
mod chaos;
mod checks;
mod cli;
mod clocks;
mod credentials;
mod demo;
mod doctor;
mod documents;
mod exit_codes;
mod failures;
mod forged;
mod guard;
mod harness;
mod hostile;
mod join;
mod lessons;
mod liars;
mod logs;
mod manifests;
mod migrate;
mod offers;
mod page;
mod partition;
mod presence;
mod report;
mod restart;
mod revocation;
mod rotate;
mod search;
mod settings;
mod sharing;
#[path = "../thin/mod.rs"]
mod thin;
mod trace;
mod traces;
mod units;
mod verbs;
mod webhook;
