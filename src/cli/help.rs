//! What `--help` shows beside the definitions: verbs in groups, an example of each, the exit codes.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Cli;

/// What people come for, and the verbs for it.
struct Group {
    title: &'static str,
    /// The verb's path, and a line that does something with it.
    verbs: &'static [(&'static str, &'static str)],
}

/// Every verb that is not hidden, once.
const GROUPS: [Group; 7] = [
    Group {
        title: "Start",
        verbs: &[
            ("init", "muster init --dir paris --name paris --seed /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"),
            ("migrate", "muster migrate --from /etc/oc/discovery.json"),
            ("run", "muster run --config paris/muster.toml"),
            ("id", "muster id --config paris/muster.toml"),
        ],
    },
    Group {
        title: "Look",
        verbs: &[
            ("status", "muster status"),
            ("peers", "muster peers --output json | jq -r '.[] | select(.connected) | .name'"),
            ("indexers", "muster indexers --explain"),
            ("sessions", "muster sessions"),
            ("tree", "muster tree --watch"),
            ("top", "muster --demo top --on lyon"),
            ("table", "muster table"),
            ("events", "muster events --since 120"),
            ("alerts", "muster alerts --output jsonl"),
            ("report", "muster report --so-far"),
        ],
    },
    Group {
        title: "Search",
        verbs: &[
            ("search", "muster search par; muster search --resources mill --kind compute"),
            ("get", "muster get did:key:z6Mk…"),
        ],
    },
    Group {
        title: "Share",
        verbs: &[
            ("resource", "muster resource ls --kind compute"),
            ("resource put", "muster resource put farm.json"),
            ("resource get", "muster resource get farm-1"),
            ("resource ls", "muster resource ls --text mill --of self"),
            ("resource rm", "muster resource rm farm-1"),
            ("partner", "muster partner ls"),
            ("partner add", "muster partner add 12D3KooW… --name lyon"),
            ("partner rm", "muster partner rm 12D3KooW…"),
            ("partner ls", "muster partner ls --output json"),
            ("outbox", "muster outbox --limit 20"),
            ("planner", "muster planner ls"),
            ("planner ls", "muster planner ls --output yaml"),
            ("planner open", "muster planner open 12D3KooW…"),
            ("planner feed", "muster planner feed 12D3KooW… '{\"step\": 1}'"),
            ("planner close", "muster planner close 12D3KooW…"),
        ],
    },
    Group {
        title: "Look after",
        verbs: &[
            ("doctor", "muster doctor --config paris/muster.toml || echo 'something is to be done'"),
            ("trace", "muster --demo trace"),
            ("bundle", "muster bundle --config paris/muster.toml --to paris.tar.gz"),
            ("restart", "muster restart root/node/pool"),
            ("backup", "muster backup --config paris/muster.toml --to paris.tar"),
            ("restore", "muster restore --from paris.tar --dir paris-again"),
            ("rotate", "muster rotate --status"),
            ("ban", "muster ban ls"),
            ("ban add", "muster ban add 12D3KooW… --for 1h --reason 'asks too much'"),
            ("ban rm", "muster ban rm 12D3KooW…"),
            ("ban ls", "muster ban ls --output json"),
            ("revoke", "muster revoke --identity paris/identity.pem --reason 'the disk was stolen' --yes"),
            ("revocations", "muster revocations --output json"),
            ("token", "muster token ls"),
            ("token add", "muster token add grafana --role reader"),
            ("token rm", "muster token rm grafana"),
            ("token ls", "muster token ls --output json"),
            ("audit", "muster audit --limit 20"),
            ("drain", "muster drain"),
            ("undrain", "muster undrain"),
        ],
    },
    Group {
        title: "Configure",
        verbs: &[
            ("config", "muster config check paris/muster.toml"),
            ("config check", "muster config check paris/muster.toml"),
            ("config show", "muster config show --origin"),
            ("config diff", "muster config diff lyon/muster.toml"),
            ("config set", "muster config set pool.max_indexer 7"),
            ("config unset", "muster config unset pool.max_indexer"),
            ("config schema", "muster config schema > muster.schema.json"),
            ("openapi", "muster openapi > openapi.json"),
            ("completions", "muster completions bash > ~/.local/share/bash-completion/completions/muster"),
            ("man", "muster man --dir ~/.local/share/man/man1"),
        ],
    },
    Group {
        title: "Try it on this machine",
        verbs: &[
            ("demo", "muster demo"),
            ("kill", "muster --demo kill indexer-2"),
            ("pause", "muster --demo pause lyon"),
            ("resume", "muster --demo resume lyon"),
            ("start", "muster --demo start indexer-2"),
            ("down", "muster --demo down"),
        ],
    },
];

/// The command line, with its help in groups and an example for each verb.
pub(super) fn command() -> Command {
    let command = Cli::command();
    let template = template(&command);
    let verbs = GROUPS.iter().flat_map(|group| group.verbs);
    verbs.fold(command, |command, (path, example)| with_example(command, path, example)).help_template(template)
}

/// The verb at `path` with an example behind its help.
fn with_example(command: Command, path: &str, example: &str) -> Command {
    let (name, rest) = path.split_once(' ').unwrap_or((path, ""));
    if command.find_subcommand(name).is_none() {
        return command;
    }
    command.mut_subcommand(name, |verb| {
        if rest.is_empty() {
            let before = verb.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
            verb.after_help(format!("{before}Example:\n  {example}"))
        } else {
            with_example(verb, rest, example)
        }
    })
}

/// The first page: groups instead of one long list.
fn template(command: &Command) -> String {
    let head = *command.get_styles().get_header();
    let verbs = || GROUPS.iter().flat_map(|group| group.verbs).filter(|(path, _)| !path.contains(' '));
    let width = verbs().map(|(path, _)| path.len()).max().unwrap_or(0);
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for group in &GROUPS {
        let _ = write!(text, "\n{head}{}:{head:#}\n", group.title);
        for (path, _) in group.verbs.iter().filter(|(path, _)| !path.contains(' ')) {
            let about = command.find_subcommand(path).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {path:<width$}  {about}");
        }
    }
    let _ = write!(text, "\n{head}Options:{head:#}\n{{options}}{{after-help}}");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    /// Every verb below a command that people see, by its path.
    fn paths(command: &Command, prefix: &str) -> BTreeSet<String> {
        let seen = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
        seen.flat_map(|verb| {
            let path = format!("{prefix}{}", verb.get_name());
            let below = paths(verb, &format!("{path} "));
            below.into_iter().chain([path])
        })
        .collect()
    }

    #[test]
    fn every_verb_is_in_one_group_and_has_an_example() {
        let listed: Vec<String> =
            GROUPS.iter().flat_map(|group| group.verbs).map(|(path, _)| (*path).to_owned()).collect();
        let known: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(known.len(), listed.len(), "one is listed twice");
        assert_eq!(paths(&Cli::command(), ""), known);
    }

    #[test]
    fn every_example_is_a_line_that_the_verb_understands() {
        for (path, example) in GROUPS.iter().flat_map(|group| group.verbs) {
            for line in example.split("; ") {
                // Up to what a shell does with the rest.
                let line = line.split(" | ").next().unwrap().split(" || ").next().unwrap().split(" > ").next().unwrap();
                let line = line.replace("12D3KooW…", &crate::admin::testing::peer().to_string());
                let words: Vec<String> = words(&line);
                let understood = command().try_get_matches_from(&words);
                assert!(understood.is_ok(), "{path}: {line}: {}", understood.unwrap_err());
                let verb = path.split(' ').next().unwrap();
                assert!(words.iter().any(|word| word == verb), "{path}: {line}");
            }
        }
    }

    /// As a shell splits a line with single quotes.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        parts
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn the_first_page_names_every_group_and_every_verb_behind_it() {
        let text = command().render_help().to_string();
        for group in &GROUPS {
            assert!(text.contains(&format!("\n{}:\n", group.title)), "{text}");
        }
        for verb in command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(text.contains(&format!("\n  {} ", verb.get_name())), "{}: {text}", verb.get_name());
        }
        assert!(text.contains("--output") && text.contains("Exit codes:"), "{text}");
        assert!(!text.contains("demo-watch"), "what is hidden is hidden: {text}");
    }

    #[test]
    fn the_help_of_a_verb_ends_with_its_example() {
        let mut command = command();
        let help = command.find_subcommand_mut("tree").unwrap().render_long_help().to_string();
        assert!(help.trim_end().ends_with("Example:\n  muster tree --watch"), "{help}");
        let resource = command.find_subcommand_mut("resource").unwrap();
        let help = resource.find_subcommand_mut("put").unwrap().render_long_help().to_string();
        assert!(help.contains("\"access\": \"public\"") && help.contains("Example:\n  muster resource put"), "{help}");
    }
}
