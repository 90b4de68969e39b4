//! muster: a roll call for a federation of clouds.

mod admin;
mod archive;
mod cli;
mod config;
mod daemon;
mod demo;
mod keys;
mod live;
mod ports;
mod telemetry;
mod traces;
mod tree;
mod watchdog;

use cli::exit::Exit;

fn main() -> Exit {
    cli::main()
}
