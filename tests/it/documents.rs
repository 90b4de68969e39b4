//! What README, tutorial and how-tos show is run as it is written, and shows what they say.
//!
//! Blocks of `sh` are run one after the other in a folder of their own; the block of `text` that follows one is what it
//! must show: each line in this order, `…` for anything, a whole line of it for any lines. Daemons are started in the
//! background and last until the end.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::harness::{PATIENCE, Port, muster, repository, skip, until_true, wait_status};

/// What a block may take: the story of a killed member is the longest.
const BLOCK_WITHIN: Duration = Duration::from_secs(200);

/// A block and what must be seen of it.
#[derive(Debug)]
struct Block {
    line: usize,
    commands: String,
    shows: Option<String>,
}

fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository(document)).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        match (kind, found.last_mut()) {
            ("sh", _) => found.push(Block { line: number + 1, commands: body, shows: None }),
            ("text", Some(block)) if block.shows.is_none() => block.shows = Some(body),
            _ => {}
        }
    }
    found
}

/// One that stands in no document.
fn block(commands: &str, shows: Option<&str>) -> Block {
    Block { line: 0, commands: commands.to_owned(), shows: shows.map(str::to_owned) }
}

/// Words without what the terminal's width makes of the space between them.
fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line is what is expected, `…` standing for anything.
fn is_like(line: &str, expected: &str) -> bool {
    let (line, expected) = (plain(line), plain(expected));
    let parts: Vec<&str> = expected.split('…').collect();
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for part in middle {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

/// The first line that is expected and not shown.
fn missing<'a>(shown: &str, expected: &'a str) -> Option<&'a str> {
    let mut lines = shown.lines();
    expected.lines().filter(|line| line.trim() != "…").find(|wanted| !lines.any(|line| is_like(line, wanted)))
}

/// A folder in which blocks are run, with `muster` on the path.
struct Shell {
    folder: TempDir,
    /// Variables that earlier blocks set.
    prelude: String,
    daemons: Vec<Child>,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("muster-it-docs-").tempdir().unwrap();
        fs::create_dir(folder.path().join(".bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_muster"), folder.path().join(".bin/muster")).unwrap();
        Self { folder, prelude: String::new(), daemons: Vec::new() }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.folder.path().join(".bin").display(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path).current_dir(self.folder.path()).stdin(Stdio::null());
        // Another demo, or another user's home, is not seen.
        for name in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
            command.env(name, self.folder.path());
        }
        command.arg("-ec").arg(format!("{}{script}", self.prelude));
        command
    }

    /// Starts what lasts.
    fn begin(&mut self, script: &str) -> PathBuf {
        let said = self.folder.path().join(format!(".daemon-{}", self.daemons.len()));
        let log = fs::File::create(&said).unwrap();
        // The last command takes the shell's place, so that a signal reaches it.
        let script = script.replace("muster run", "exec muster run").replace("muster demo", "exec muster demo");
        let mut command = self.command(&script);
        command.env("MUSTER_DEMO_PARENT", std::process::id().to_string());
        self.daemons.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        said
    }

    /// Runs a block until it has ended well and shows what it must; what changes something is run once.
    #[track_caller]
    fn run(&mut self, block: &Block) {
        let is_once = [" init ", " backup ", " restore ", " --begin", " --finish"]
            .iter()
            .any(|verb| block.commands.contains(verb));
        let began = Instant::now();
        loop {
            let child = self.command(&block.commands).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let ended = crate::harness::wait_with_deadline(child, BLOCK_WITHIN);
            let wrong = match (ended.code, &block.shows) {
                (Some(0), None) => None,
                (Some(0), Some(expected)) => missing(&ended.out, expected).map(|line| format!("is not shown: {line}")),
                (code, _) => Some(format!("ended with {code:?}")),
            };
            let Some(wrong) = wrong else { break };
            assert!(
                !is_once && began.elapsed() < PATIENCE,
                "line {}: {wrong}\n{block:?}\n{}\n{}",
                block.line,
                ended.out,
                ended.err
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        for line in block.commands.lines() {
            let is_variable = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
            if line.split_once('=').is_some_and(|(name, value)| {
                is_variable(name) && (value.starts_with("$(") || !value.contains(' ') || value.contains("$("))
            }) {
                self.prelude.push_str(line);
                self.prelude.push('\n');
            }
        }
    }

    /// Lets what lasts end politely.
    #[track_caller]
    fn end(&mut self) {
        for daemon in &self.daemons {
            let _ = kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM);
        }
        for mut daemon in self.daemons.drain(..) {
            let ended = wait_status(&mut daemon, PATIENCE);
            assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for mut daemon in self.daemons.drain(..) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".daemon-") {
                    let said = fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = said.lines().collect();
                    eprintln!("{:?}:\n{}", entry.file_name(), lines[lines.len().saturating_sub(20)..].join("\n"));
                }
            }
        }
    }
}

fn is_daemon(block: &Block) -> bool {
    block.commands.contains("muster run --config") || block.commands.contains("cargo run --release -- demo")
}

#[test]
fn the_tutorial_does_what_it_says() {
    let test = "the_tutorial_does_what_it_says";
    if Command::new("curl").arg("--version").output().is_err() {
        skip(test, "there is no curl");
        return;
    }
    // Its ports are those of this machine's own members, if it has any.
    let written = ["tcp/4001", "port 4001", "port 4002", "port 4003", "1:7301", "1:7302"];
    let ports: Vec<Port> = (0..6).map(|_| Port::free()).collect();
    let desk = ports[0].number;
    let numbers = [desk, desk, ports[1].number, ports[2].number, ports[3].number, ports[4].number];
    let mut shell = Shell::new();
    // The first member is the only one whose admin port is the usual one.
    shell.prelude = format!("export MUSTER_ADMIN__LISTEN=127.0.0.1:{}\n", ports[5].number);
    let blocks = blocks("docs/tutorial.md");
    assert!(blocks.len() >= 15, "{}", blocks.len());
    for mut block in blocks {
        for (text, number) in written.iter().zip(numbers) {
            let digits = text.len() - 4;
            block.commands = block.commands.replace(text, &format!("{}{number}", &text[..digits]));
        }
        if is_daemon(&block) {
            shell.begin(&block.commands);
        } else {
            shell.run(&block);
        }
    }
    shell.end();
}

#[test]
fn the_readme_does_what_it_says() {
    let blocks = blocks("README.md");
    let [demo, verbs, sharing, first, run_first, second, run_second] = &blocks[..] else {
        panic!("a block that no test knows: {blocks:#?}");
    };
    let mut shell = Shell::new();
    // Its two commands; the second one runs this test.
    let (started, tests) = demo.commands.split_once('\n').unwrap();
    assert!(started.starts_with("cargo run --release -- demo "), "{started}");
    assert!(tests.starts_with("tests/run ") && repository("tests/run").is_file(), "{tests}");
    let said = shell.begin(&started.replace("cargo run --release -- demo", "muster demo"));
    let converged = || fs::read_to_string(&said).is_ok_and(|said| said.contains("end everything"));
    until_true("the demo has converged and said so", PATIENCE, converged);
    for block in [verbs, sharing] {
        // One by one, as a reader types them.
        for (at, line) in block.commands.lines().enumerate() {
            // What it finds on the machine of this test is no fault of the page.
            let line = line.replace("muster --demo doctor ", "muster --demo doctor | grep ' checks: ' ");
            shell.run(&Block { line: block.line + 1 + at, commands: line, shows: None });
        }
    }
    shell.run(&Block { line: verbs.line, commands: "muster --demo down".to_owned(), shows: None });
    shell.end();

    // Two hosts, which here differ in their folders and ports.
    let ports: Vec<Port> = (0..4).map(|_| Port::free()).collect();
    let host = |name: &str, peers: &Port, admin: &Port| {
        let settings = [
            format!("MUSTER_NETWORK__PORT={}", peers.number),
            format!("MUSTER_ADMIN__LISTEN=127.0.0.1:{}", admin.number),
            "MUSTER_NETWORK__PROFILE=local".to_owned(),
        ];
        (name.to_owned(), format!("export {}\n", settings.join(" ")))
    };
    let hosts = [host("first", &ports[0], &ports[1]), host("second", &ports[2], &ports[3])];
    let address = "ADDRESS=/ip4/127.0.0.1/tcp/PORT/p2p/$(muster id --config first/muster.toml --output yaml | sed -n 's/^peer_id: //p')\n";
    for ((folder, settings), blocks) in hosts.iter().zip([[first, run_first], [second, run_second]]) {
        shell.prelude.clone_from(settings);
        if folder == "second" {
            shell.prelude.push_str(&address.replace("PORT", &ports[0].number.to_string()));
            fs::copy(shell.folder.path().join("first/swarm.key"), shell.folder.path().join("swarm.key")).unwrap();
        }
        let there = |block: &Block| block.commands.replace("/srv/muster", folder);
        shell.run(&Block { line: blocks[0].line, commands: there(blocks[0]), shows: None });
        assert!(is_daemon(blocks[1]));
        shell.begin(&there(blocks[1]));
    }
    let whole = Block {
        line: run_second.line,
        commands: "muster --config second/muster.toml status".into(),
        shows: Some("paris (node), ready, whole".into()),
    };
    shell.run(&whole);
    shell.end();
}

#[test]
fn the_key_is_replaced_as_it_is_written() {
    let blocks = blocks("docs/how-to/rotate-keys.md");
    let [first, others, status, finish] = &blocks[..] else { panic!("a block that no test knows: {blocks:#?}") };
    let ports: Vec<Port> = (0..6).map(|_| Port::free()).collect();
    let mut members: Vec<Shell> = ports
        .chunks(3)
        .map(|ports| {
            let mut shell = Shell::new();
            let [peers, next, admin] = [0, 1, 2].map(|at| ports[at].number);
            shell.prelude = format!(
                "export MUSTER_NETWORK__PORT={peers} MUSTER_NETWORK__NEXT_PORT={next} MUSTER_NETWORK__PROFILE=local\n\
                 export MUSTER_ADMIN__LISTEN=127.0.0.1:{admin}\n"
            );
            shell
        })
        .collect();
    let of = |shell: &Shell, name: &str| shell.folder.path().join(name);
    // The daemon is this test's own and no unit.
    let there = |block: &Block| {
        let (commands, is_restarted) = match block.commands.strip_suffix("\nsystemctl restart muster") {
            Some(commands) => (commands, true),
            None => (block.commands.as_str(), false),
        };
        let commands = commands.replace("/var/lib/muster", "muster");
        (Block { line: block.line, commands, shows: block.shows.clone() }, is_restarted)
    };
    let run = "muster run --config muster/muster.toml";
    let whole = block("muster --config muster/muster.toml status", Some("paris (node), ready, whole"));

    members[0].run(&block("muster init --dir muster --name desk --mode indexer", None));
    members[0].begin(run);
    let config = of(&members[0], "muster/muster.toml");
    let desk = muster(&["id", "--config", config.to_str().unwrap(), "--output", "json"]).ok().json();
    let seed = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", ports[0].number, desk["peer_id"].as_str().unwrap());
    fs::copy(of(&members[0], "muster/swarm.key"), of(&members[1], "swarm.key")).unwrap();
    members[1].run(&block(&format!("muster init --dir muster --name paris --psk swarm.key --seed {seed}"), None));
    members[1].begin(run);
    members[1].run(&whole);

    for step in [[first, others], [finish, finish]] {
        for (at, block) in step.into_iter().enumerate() {
            if std::ptr::eq(block, others) {
                fs::copy(of(&members[0], "muster/swarm.key"), of(&members[1], "next.key")).unwrap();
            }
            let (block, is_restarted) = there(block);
            assert!(is_restarted, "{block:?}");
            members[at].run(&block);
            members[at].end();
            members[at].begin(run);
            members[1].run(&whole);
        }
        if std::ptr::eq(step[0], first) {
            members[0].run(&there(status).0);
        }
    }
    let held = |shell: &Shell| fs::read(of(shell, "muster/swarm.key")).unwrap();
    assert_eq!(held(&members[0]), held(&members[1]));
    assert_ne!(held(&members[1]), fs::read(of(&members[1], "swarm.key")).unwrap());
    for shell in &mut members {
        shell.end();
    }
}

#[test]
fn a_stolen_key_is_revoked_as_it_is_written() {
    let blocks = blocks("docs/how-to/revoke-a-key.md");
    let [at_hand, prepared, handed_in, listed] = &blocks[..] else { panic!("a block that no test knows: {blocks:#?}") };
    let ports: Vec<Port> = (0..2).map(|_| Port::free()).collect();
    let mut shell = Shell::new();
    shell.prelude = format!(
        "export MUSTER_NETWORK__PORT={} MUSTER_ADMIN__LISTEN=127.0.0.1:{} MUSTER_NETWORK__PROFILE=local\n",
        ports[0].number, ports[1].number
    );
    shell.run(&block("muster init --dir lyon --name lyon --mode indexer", None));
    shell.run(&block("muster init --dir paris --name paris --psk lyon/swarm.key", None));
    let config = shell.folder.path().join("paris/muster.toml");
    let paris = muster(&["id", "--config", config.to_str().unwrap(), "--output", "json"]).ok().json();
    shell.begin("muster run --config lyon/muster.toml");
    shell.run(&block("muster --config lyon/muster.toml status", Some("lyon (indexer), ready, …")));
    for step in [at_hand, prepared, handed_in, listed] {
        shell.run(step);
    }
    let is_held = format!("…{}…", paris["peer_id"].as_str().unwrap());
    shell.run(&block(&listed.commands, Some(&is_held)));
    shell.end();
}

#[test]
fn what_is_shown_is_compared_line_by_line() {
    let shown = "paris is made\n  peer id    12D3KooWabc\nnext: run\n";
    for (expected, missed) in [
        ("paris is made\nnext: run", None),
        ("paris is made\n peer id 12D3KooW…", None),
        ("…made\n…\nnext: …", None),
        ("next: run\nparis is made", Some("paris is made")),
        ("peer id 13…", Some("peer id 13…")),
        ("paris is", Some("paris is")),
    ] {
        assert_eq!(missing(shown, expected), missed, "{expected}");
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/tutorial.md"]
        .map(str::to_owned)
        .into_iter()
        .chain(["docs/how-to", "docs/runbooks"].iter().flat_map(|folder| {
            fs::read_dir(repository(folder))
                .unwrap()
                .map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy()))
        }))
    {
        let text = fs::read_to_string(repository(&document)).unwrap();
        let folder = repository(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            assert!(
                link.is_empty() || link.contains("://") || folder.join(link).exists(),
                "{document} links to {link}"
            );
        }
    }
}
