//! Takes a member's secrets out of whatever is to be passed on.

use std::fs;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use crate::{cli::Context, config::Config, keys::AdminToken};

/// Shorter ones are parts of common words, and would tear text apart: they stand in settings alone, which are hidden there.
const SECRET_CHARS_MIN: usize = 6;

/// A file of secrets is not read beyond this; keys and credentials have a kilobyte.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Stands where a secret stood.
const HIDDEN: &str = "***";

/// What must not be passed on.
pub(super) struct Redaction {
    secrets: Vec<Zeroizing<String>>,
    count: usize,
}

impl Redaction {
    /// Of the member that a verb is about; of one that is named by its address only what this shell knows.
    pub(super) fn of(context: &Context) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(context.environment.get("MUSTER_ADMIN_TOKEN").map(str::to_owned));
        if !context.is_by_address()
            && let Ok(config) = context.config()
        {
            secrets.extend(of_member(&config));
        }
        Self::from_secrets(secrets)
    }

    fn from_secrets(secrets: impl IntoIterator<Item = String>) -> Self {
        let long = |secret: &String| secret.chars().count() >= SECRET_CHARS_MIN;
        let mut secrets: Vec<_> = secrets.into_iter().filter(long).map(Zeroizing::new).collect();
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets, count: 0 }
    }

    /// How often something was taken out.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The text without secrets.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            let found = text.matches(secret.as_str()).count();
            if found > 0 {
                self.count += found;
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        text
    }

    /// The value without secrets: before it is written, so that no escape hides one.
    pub(super) fn json(&mut self, value: Json) -> Json {
        match value {
            Json::String(text) => Json::String(self.text(&text)),
            Json::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Json::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (self.text(&name), self.json(value)));
                Json::Object(fields.collect::<Map<_, _>>())
            }
            other => other,
        }
    }
}

/// Every secret that a member's folder and settings hold.
fn of_member(config: &Config) -> Vec<String> {
    let settings = &config.settings;
    let mut secrets = vec![settings.bus.password.reveal().to_owned(), settings.store.url.to_string()];
    secrets.extend(AdminToken::read(&config.data()).ok().map(|token| token.expose().to_owned()));
    secrets.extend(settings.bus.url.split(',').chain([&*settings.store.url]).flat_map(of_url));
    let bus = config.bus();
    let files = [Some(config.key()), config.psk(), Some(bus.nkey_seed_file), Some(bus.creds_file)];
    secrets.extend(files.into_iter().flatten().flat_map(|path| lines(&path)));
    secrets
}

/// Who a URL lets in: the password as it is written, and as it is meant.
fn of_url(url: &str) -> Vec<String> {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let Some((user, _)) = authority.rsplit_once('@') else { return Vec::new() };
    // A token of NATS stands where others have a name.
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    vec![secret.to_owned(), percent_decode_str(secret).decode_utf8_lossy().into_owned()]
}

/// Each line of a file of secrets that is no frame or heading.
fn lines(path: &std::path::Path) -> Vec<String> {
    let is_small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= FILE_BYTES_MAX);
    let Some(text) = is_small.then(|| fs::read_to_string(path).ok()).flatten().map(Zeroizing::new) else {
        return Vec::new();
    };
    let is_secret = |line: &&str| !line.is_empty() && !line.starts_with(['-', '/', '*', '#']);
    text.lines().map(str::trim).filter(is_secret).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn redaction(secrets: &[&str]) -> Redaction {
        Redaction::from_secrets(secrets.iter().map(|secret| (*secret).to_owned()))
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_stands_and_however_json_writes_it() {
        let mut redaction = redaction(&["ge\"heim", "geheimnis"]);
        let told = json!({"a": ["x ge\"heim y", 7], "ge\"heim": {"b": "geheimnis geheimnis"}});
        assert_eq!(redaction.json(told), json!({"a": ["x *** y", 7], "***": {"b": "*** ***"}}));
        assert_eq!(redaction.text("plain"), "plain");
        assert_eq!(redaction.count(), 4);
    }

    #[test]
    fn the_longer_of_two_secrets_leaves_nothing_of_itself() {
        assert_eq!(redaction(&["geheim", "geheimnis"]).text("geheimnis"), "***");
    }

    #[test]
    fn a_secret_of_five_letters_tears_no_words_apart_and_one_of_six_is_taken_out() {
        assert_eq!(redaction(&["store"]).text("root/store"), "root/store");
        assert_eq!(redaction(&["stores"]).text("root/stores"), "root/***");
    }

    #[test]
    fn urls_let_in_by_password_and_by_token() {
        for (url, secrets) in [
            ("nats://me:geheim@host:4222", &["geheim", "geheim"][..]),
            ("postgresql://m:ge%40heim@db/muster?a=b@c", &["ge%40heim", "ge@heim"]),
            ("nats://t0ken@host", &["t0ken", "t0ken"]),
            ("nats://host:4222", &[]),
            ("", &[]),
        ] {
            assert_eq!(of_url(url), secrets, "{url}");
        }
    }

    #[test]
    fn frames_of_key_files_are_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "-----BEGIN X-----\nMIIabc\n-----END X-----\n\n/base16/\n0123\n").unwrap();
        assert_eq!(lines(&path), ["MIIabc", "0123"]);
        assert!(lines(folder.path()).is_empty() && lines(&folder.path().join("none")).is_empty());
    }
}
