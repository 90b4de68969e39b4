//! The command line: one file per verb.

mod alerts;
mod audit;
mod backup;
mod ban;
mod bundle;
pub(crate) mod client;
mod completions;
mod config;
mod demo;
mod doctor;
mod drain;
mod events;
pub(crate) mod exit;
mod get;
mod help;
mod id;
mod indexers;
pub(crate) mod init;
mod man;
mod migrate;
mod openapi;
mod outbox;
pub(crate) mod output;
mod partner;
mod peers;
mod planner;
mod report;
mod resource;
mod restart;
mod restore;
mod revoke;
mod rotate;
mod run;
mod search;
mod sessions;
mod status;
mod table;
mod token;
mod top;
mod trace;
mod tree;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{FromArgMatches as _, Parser, Subcommand};
use libp2p_identity::PeerId;
use tokio::runtime::{Builder, Runtime};

use self::{
    client::Client,
    exit::{Exit, Failure},
    output::Output,
};
use crate::{
    config::{self as settings, Config, Flags, USUAL_FILE, load},
    demo::state::Folder,
    keys::AdminToken,
};

/// Name of the file in the data folder that tells where the admin endpoint listens.
pub(crate) const ADMIN_ADDRESS: &str = "admin.addr";

/// Name of the one that tells where its Unix socket is, where it has one.
pub(crate) const ADMIN_SOCKET: &str = "admin.socket";

/// A roll call for a federation of clouds.
#[derive(Debug, Parser)]
#[command(name = "muster", version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    at: At,

    /// Form of the answer.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Output,

    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not reachable, 4 not found, 5 not allowed, \
6 timed out, 7 partial, 8 refused, 70 internal, 74 input/output, 78 configuration, 130 interrupted.";

/// Which daemon a verb speaks to.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which daemon")]
pub(crate) struct At {
    /// The daemon's configuration [default: muster.toml in this folder, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The daemon's admin address, http://HOST:PORT or unix:/PATH [default: the variable MUSTER_ADMIN, if it is set]; its
    /// token, where one is needed, is taken from MUSTER_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "config")]
    pub(crate) admin: Option<String>,

    /// A member of the running demo.
    #[arg(long, global = true, conflicts_with_all = ["config", "admin"])]
    pub(crate) demo: bool,

    /// Which member of the demo [default: its first node].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) on: Option<String>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a member: its configuration, its identity, its network's key.
    Init(init::Args),
    /// Make a member of what the predecessor's configuration says; it stays who it is.
    Migrate(migrate::Args),
    /// Run a member as a daemon.
    Run(run::Args),
    /// Show a member's peer id, DID and addresses.
    Id,
    /// Show how a member is and what is wrong with it.
    Status(status::Args),
    /// List the peers that a member knows.
    Peers,
    /// List the indexers in a member's pool.
    Indexers(indexers::Args),
    /// List the nodes that have a session at an indexer.
    Sessions,
    /// Search for members; hits are shown as they come.
    Search(search::Args),
    /// Look a member up by peer id, DID or exact name.
    Get(get::Args),
    /// Show the tree of actors with their vitals.
    Tree(tree::Args),
    /// Watch a member live: peers, actors, searches, events.
    Top,
    /// Send a beacon, and show how many members a broadcast reaches and how fast.
    Trace,
    /// Show the routing table: which indexers a member asks in the DHT, by distance.
    Table,
    /// Show what is wrong with a member and its host.
    Alerts,
    /// Show what a member did in a day.
    Report(report::Args),
    /// Show what happened lately.
    Events(events::Args),
    /// Look for what is wrong with a member, running or not: evidence, and what to do.
    Doctor,
    /// Write an archive for whoever helps: how a member is, without its secrets.
    Bundle(bundle::Args),
    /// Offer resources, change them, list what is offered.
    #[command(subcommand)]
    Resource(resource::Verb),
    /// Choose our partners, and whom we refuse.
    #[command(subcommand)]
    Partner(partner::Verb),
    /// Show what waits for partners and the bus, and what became of what waited.
    Outbox(outbox::Args),
    /// Make plans with others: open sessions, feed them steps, close them.
    #[command(subcommand)]
    Planner(planner::Verb),
    /// Ban peers from an indexer, take bans back, list them.
    #[command(subcommand)]
    Ban(ban::Verb),
    /// Revoke a key that was stolen or lost, for good: with the key itself, or with what it signed beforehand.
    Revoke(revoke::Args),
    /// List whose keys are revoked.
    Revocations,
    /// Let the nodes of an indexer go, and take no new ones.
    Drain(drain::Args),
    /// Let a drained indexer take nodes again.
    Undrain(drain::Args),
    /// Restart one actor of a member, as if it had failed.
    Restart(restart::Args),
    /// Write all that a member is into one file, also while it runs.
    Backup(backup::Args),
    /// Make a member again from its backup.
    Restore(restore::Args),
    /// Give tokens to those who may read, operate or administer a member, and take them back.
    #[command(subcommand)]
    Token(token::Verb),
    /// Show who changed what and when.
    Audit(audit::Args),
    /// Replace the network's pre-shared key, with everybody reachable meanwhile.
    Rotate(rotate::Args),
    /// Check a configuration, show it, compare it, describe it.
    #[command(subcommand)]
    Config(config::Verb),
    /// Write what a shell needs to complete this command.
    Completions(completions::Args),
    /// Write the manual's pages into a folder.
    Man(man::Args),
    /// Write the description of the admin endpoint, in OpenAPI 3.1.
    Openapi,
    #[command(flatten)]
    Demo(demo::Verb),
}

/// What the process was started with; read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of ours and of the predecessor; others are nobody's business.
    fn read() -> Self {
        // Not `vars()`, which panics where any variable is not UTF-8.
        let ours = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with("MUSTER_") || settings::is_predecessors(name));
        Self(ours.collect())
    }

    /// The variable's text, when it is set to something.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// All of them.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// What every verb is given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Which daemon.
    pub(crate) at: At,
    /// Form of the answer.
    pub(crate) output: Output,
    /// The process's variables.
    pub(crate) environment: Environment,
}

impl Context {
    /// The daemon that the verb speaks to.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let token = self.environment.get("MUSTER_ADMIN_TOKEN").map(str::to_owned);
        if self.at.on.is_some() && !self.at.demo {
            return Err(Failure::new(Exit::Usage, "--on names a member of the demo").next("add --demo"));
        }
        if self.at.demo {
            let state = Folder::usual().find()?;
            return Ok(Client::to(state.member(self.at.on.as_deref())?.admin.to_string()).with_token(token));
        }
        if let Some(url) = &self.at.admin {
            return Ok(Client::from_url(url)?.with_token(token));
        }
        // A variable of the shell is weaker than a flag and stronger than the folder one happens to stand in.
        match (&self.at.config, self.environment.get("MUSTER_ADMIN")) {
            (None, Some(url)) => Ok(Client::from_url(url)?.with_token(token)),
            _ => daemon_of(&self.config()?, token),
        }
    }

    /// The daemon of a verb that changes it: with its token, read from its folder where the environment does not tell it.
    pub(crate) fn client_that_changes(&self) -> Result<Client, Failure> {
        let client = self.client()?;
        match self.environment.get("MUSTER_ADMIN_TOKEN") {
            Some(_) => Ok(client),
            None if self.is_by_address() => Err(Failure::new(Exit::NotAllowed, "this verb needs the daemon's token")
                .next("use --config FILE as the user that runs the daemon, or set MUSTER_ADMIN_TOKEN")),
            None => {
                let token = AdminToken::read(&self.config()?.data())?.expose().to_owned();
                Ok(client.with_token(Some(token)))
            }
        }
    }

    /// Whether the daemon is named by its address: its folder may be on another machine.
    pub(crate) fn is_by_address(&self) -> bool {
        self.at.admin.is_some()
            || (!self.at.demo && self.at.config.is_none() && self.environment.get("MUSTER_ADMIN").is_some())
    }

    /// The peer id that a text names: itself, or in a demo a member's. Names of the network are nobody's for sure.
    pub(crate) fn peer(&self, text: &str) -> Result<String, Failure> {
        if text.parse::<PeerId>().is_ok() {
            return Ok(text.to_owned());
        }
        if self.at.demo {
            return Ok(Folder::usual().find()?.member(Some(text))?.peer_id.clone());
        }
        Err(Failure::new(Exit::Usage, format!("\"{}\" is no peer id", output::clean(text)))
            .next("`muster get NAME` shows the peer id of a name; ask its operator whether it is the right one"))
    }

    /// The same, or `self`.
    pub(crate) fn peer_or_self(&self, text: &str) -> Result<String, Failure> {
        if text == "self" { Ok(text.to_owned()) } else { self.peer(text) }
    }

    /// The settings of the member that the verb is about.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.config_with(&Flags::default())
    }

    /// The settings, with these flags over them.
    pub(crate) fn config_with(&self, flags: &Flags) -> Result<Config, Failure> {
        load(&self.config_file()?, self.environment.variables(), flags)
    }

    /// The file of the member that the verb is about.
    pub(crate) fn config_file(&self) -> Result<PathBuf, Failure> {
        if self.at.demo {
            let state = Folder::usual().find()?;
            return Ok(state.member(self.at.on.as_deref())?.dir.join(USUAL_FILE));
        }
        let named = self.at.config.clone().or_else(|| self.environment.get("MUSTER_CONFIG").map(PathBuf::from));
        let is_said = settings::predecessor_speaks(self.environment.variables());
        let usual = || Some(PathBuf::from(USUAL_FILE)).filter(|path| path.exists() || is_said);
        named.or_else(usual).ok_or_else(|| {
            Failure::new(Exit::Usage, "no member is named")
                .why(format!("there is no {USUAL_FILE} in this folder"))
                .next("add --config FILE, --admin URL or --demo; `muster init --dir DIR` makes a member")
        })
    }
}

/// The running daemon of a member, found by what it wrote into its folder.
fn daemon_of(config: &Config, token: Option<String>) -> Result<Client, Failure> {
    let data = config.data();
    // The socket cannot be anybody else's, as a port may be by now.
    if let Ok(socket) = std::fs::read_to_string(data.join(ADMIN_SOCKET)) {
        return Ok(Client::to_socket(socket.trim_end_matches('\n')).with_token(token));
    }
    let path = data.join(ADMIN_ADDRESS);
    let address = std::fs::read_to_string(&path).map_err(|cause| {
        Failure::new(Exit::Unreachable, format!("no daemon runs on {}", data.display()))
            .why(format!("{}: {cause}", path.display()))
            .next("start it: muster run --config FILE")
    })?;
    let address = address.trim();
    // Reading on loopback needs no token, and a port that another process took over meanwhile shall not learn it.
    let is_loopback = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    let token = match token {
        None if !is_loopback => Some(AdminToken::read(&data)?.expose().to_owned()),
        given => given,
    };
    Ok(Client::to(address).with_token(token))
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> Exit {
    let parsed = help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Nothing can be told where the terminal is gone.
            let _ = error.print();
            return exit;
        }
    };
    let context = Context { at: cli.at, output: cli.output, environment: Environment::read() };
    match perform(cli.verb, &context) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            anstream::eprint!("{}", failure.text());
            failure.exit
        }
    }
}

fn perform(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Init(args) => init::run(&args, context),
        Verb::Migrate(args) => migrate::run(&args, context),
        Verb::Run(args) => run::run(&args, context),
        Verb::Id => asked(id::run(context)),
        Verb::Status(args) => asked(status::run(&args, context)),
        Verb::Peers => asked(peers::run(context)),
        Verb::Indexers(args) => asked(indexers::run(&args, context)),
        Verb::Sessions => asked(sessions::run(context)),
        Verb::Search(args) => asked(search::run(&args, context)),
        Verb::Get(args) => asked(get::run(&args, context)),
        Verb::Tree(args) => asked(tree::run(&args, context)),
        Verb::Top => asked(top::run(context)),
        Verb::Trace => asked(trace::run(context)),
        Verb::Table => asked(table::run(context)),
        Verb::Alerts => asked(alerts::run(context)),
        Verb::Report(args) => asked(report::run(&args, context)),
        Verb::Events(args) => asked(events::run(&args, context)),
        Verb::Doctor => asked(doctor::run(context)),
        Verb::Bundle(args) => asked(bundle::run(&args, context)),
        Verb::Resource(verb) => asked(resource::run(&verb, context)),
        Verb::Partner(verb) => asked(partner::run(&verb, context)),
        Verb::Outbox(args) => asked(outbox::run(&args, context)),
        Verb::Planner(verb) => asked(planner::run(&verb, context)),
        Verb::Ban(verb) => asked(ban::run(&verb, context)),
        Verb::Revoke(args) => asked(revoke::run(&args, context)),
        Verb::Revocations => asked(revoke::list(context)),
        Verb::Drain(args) => asked(drain::drain(&args, context)),
        Verb::Undrain(args) => asked(drain::undrain(&args, context)),
        Verb::Restart(args) => asked(restart::run(&args, context)),
        Verb::Backup(args) => asked(backup::run(&args, context)),
        Verb::Restore(args) => restore::run(&args, context),
        Verb::Token(verb) => asked(token::run(&verb, context)),
        Verb::Audit(args) => asked(audit::run(&args, context)),
        Verb::Rotate(args) => asked(rotate::run(&args, context)),
        Verb::Config(verb) => config::run(&verb, context),
        Verb::Openapi => openapi::run(),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args, context),
        // They hear Ctrl-C themselves: it is how the demo is ended.
        Verb::Demo(verb) => runtime()?.block_on(demo::run(verb, context)),
    }
}

/// Waits for a verb that asks a daemon, or for Ctrl-C.
fn asked(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        tokio::select! {
            done = verb => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    })
}

/// The runtime of every verb and of the daemon.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new(Exit::Failed, "cannot start the runtime").why(cause.to_string()))
}

/// A path as the terminal's user would write it: `.` for nothing.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory as _;

    use super::*;

    fn context(at: At, variables: &[(&str, &str)]) -> Context {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Context { at, output: Output::Table, environment: Environment(variables) }
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_have_at_least_one_row_and_no_endless_number() {
        for (verb, max) in [(&["resource", "ls"][..], 100_000), (&["outbox"], 10_000)] {
            for (limit, is_good) in [(0, false), (1, true), (max, true), (max + 1, false)] {
                let limit = limit.to_string();
                let line = [&["muster"], verb, &["--limit", &limit]].concat();
                assert_eq!(Cli::try_parse_from(&line).is_ok(), is_good, "{line:?}");
            }
        }
    }

    #[test]
    fn flags_stand_before_and_behind_the_verb() {
        for line in [["muster", "--demo", "peers", "--on", "paris"], ["muster", "peers", "--on", "paris", "--demo"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.at.demo);
            assert_eq!(cli.at.on.as_deref(), Some("paris"));
        }
    }

    #[test]
    fn two_ways_to_name_a_daemon_are_one_too_many() {
        for line in [["--demo", "--admin", "x"], ["--demo", "--config", "x"], ["--config=x", "--admin", "x"]] {
            assert!(Cli::try_parse_from(["muster"].into_iter().chain(line).chain(["peers"])).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_flag_is_stronger_than_the_variable() {
        let at = At { admin: Some("127.0.0.1:1".to_owned()), ..At::default() };
        let client = context(at, &[("MUSTER_ADMIN", "http://127.0.0.1:2")]).client().unwrap();
        assert_eq!(client.authority(), "127.0.0.1:1");
        let client = context(At::default(), &[("MUSTER_ADMIN", "http://127.0.0.1:2")]).client().unwrap();
        assert_eq!(client.authority(), "127.0.0.1:2");
    }

    #[test]
    fn a_member_of_the_demo_without_the_demo_is_a_usage_error() {
        let at = At { on: Some("paris".to_owned()), ..At::default() };
        assert_eq!(context(at, &[]).client().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_name_is_no_peer_id_outside_of_a_demo() {
        let peer = crate::admin::testing::peer().to_string();
        let context = context(At::default(), &[]);
        assert_eq!(context.peer(&peer).unwrap(), peer);
        assert_eq!(context.peer_or_self("self").unwrap(), "self");
        for wrong in ["lyon", "self", ""] {
            assert_eq!(context.peer(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_daemon_that_does_not_run_is_unreachable_and_the_remedy_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        std::fs::write(&file, "").unwrap();
        let at = At { config: Some(file), ..At::default() };
        let failure = context(at, &[]).client().unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(failure.next.as_deref(), Some("start it: muster run --config FILE"));
    }

    #[test]
    fn a_daemon_is_found_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/admin.addr"), "127.0.0.1:7345\n").unwrap();
        let at = At { config: Some(file), ..At::default() };
        assert_eq!(context(at, &[]).client().unwrap().authority(), "127.0.0.1:7345");
    }
}
