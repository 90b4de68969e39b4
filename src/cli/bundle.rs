//! `muster bundle`: an archive for whoever helps: how a member is, without its secrets.
//!
//! Secrets are kept out twice: nothing that is asked for holds one, and whatever is written is searched for those that this
//! member has.

mod redaction;

use std::{io, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value as Json, json};

use self::redaction::Redaction;
use super::{
    Context,
    client::Client,
    doctor,
    exit::{Exit, Failure},
};
use crate::{
    config::{self, Flags},
    keys,
};

/// What the daemon is asked for, and the file in the archive.
const ASKED: [(&str, &str); 11] = [
    ("status.json", "/api/v1/status"),
    ("actors.json", "/api/v1/actors"),
    ("alerts.json", "/api/v1/alerts"),
    ("samples.json", "/api/v1/alerts/history"),
    ("events.json", "/api/v1/events"),
    ("peers.json", "/api/v1/peers"),
    ("indexers.json", "/api/v1/indexers"),
    ("sessions.json", "/api/v1/sessions"),
    ("table.json", "/api/v1/table"),
    ("outbox.json", "/api/v1/outbox"),
    ("bus.json", "/api/v1/bus"),
];

/// Arguments of the verb.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive; never written over something [default: muster-bundle-TIME.tar.gz in this folder].
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    bytes: usize,
    parts: Vec<String>,
    /// What is not in it, and why.
    missing: Vec<Missing>,
    /// Places in which a secret stood and was taken out.
    redacted: usize,
}

/// A part that is not there.
#[derive(Clone, Debug, Serialize)]
struct Missing {
    part: String,
    why: String,
}

/// The parts as they are gathered.
struct Parts {
    redaction: Redaction,
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<Missing>,
}

impl Parts {
    fn json(&mut self, name: &str, value: Result<Json, Failure>) {
        match value {
            Ok(value) => {
                let value = self.redaction.json(value);
                // Nothing that came as JSON is refused as such.
                let text = serde_json::to_vec_pretty(&value).unwrap_or_default();
                self.files.push((name.to_owned(), text));
            }
            Err(failure) => self.misses(name, &failure),
        }
    }

    fn text(&mut self, name: &str, text: Result<String, Failure>) {
        match text {
            Ok(text) => {
                let text = self.redaction.text(&text).into_bytes();
                self.files.push((name.to_owned(), text));
            }
            Err(failure) => self.misses(name, &failure),
        }
    }

    fn misses(&mut self, part: &str, failure: &Failure) {
        let why = self.redaction.text(&failure.what);
        self.missing.push(Missing { part: part.to_owned(), why });
    }
}

/// Gathers and writes.
pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let now = Timestamp::now();
    let usual = || PathBuf::from(format!("muster-bundle-{}.tar.gz", now.strftime("%Y%m%dT%H%M%SZ")));
    let file = args.to.clone().unwrap_or_else(usual);
    // Before anything is asked, so that nobody waits for a refusal.
    if file.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Refused, format!("{} exists and is never overwritten", file.display()))
            .next("name another file with --to, or move it away"));
    }
    let mut parts = Parts { redaction: Redaction::of(context), files: Vec::new(), missing: Vec::new() };
    gather(&mut parts, context).await?;
    let manifest = json!({
        "made_at": now,
        "command": env!("CARGO_PKG_VERSION"),
        "parts": parts.files.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "missing": parts.missing,
        "redacted": parts.redaction.count(),
    });
    let redacted = parts.redaction.count();
    parts.json("manifest.json", Ok(manifest));
    let archive = packed(&parts.files, now)
        .map_err(|cause| Failure::new(Exit::InputOutput, "the archive cannot be made").why(cause.to_string()))?;
    keys::create(&file, &archive)?;
    let names = parts.files.into_iter().map(|(name, _)| name).collect();
    let written = Written { file, bytes: archive.len(), parts: names, missing: parts.missing, redacted };
    context.output.one(&written, text)?;
    if written.missing.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Partial, "")) }
}

async fn gather(parts: &mut Parts, context: &Context) -> Result<(), Failure> {
    let report = doctor::report(context).await?;
    parts.json("doctor.json", as_json(&report));
    if !context.is_by_address() {
        let told = context
            .config_file()
            .and_then(|file| config::tell(&file, context.environment.variables(), &Flags::default()));
        parts.json("config.json", told.and_then(|told| as_json(&told.effective)));
    }
    let client = match context.client() {
        Ok(client) => client,
        Err(failure) => {
            parts.misses("daemon", &failure);
            return Ok(());
        }
    };
    for (name, path) in ASKED {
        let answer = client.get::<Json>(path).await;
        if let Err(failure) = &answer
            && failure.exit == Exit::Unreachable
        {
            // The others would not be answered either.
            parts.misses("daemon", failure);
            return Ok(());
        }
        // A member without a bus misses nothing.
        if !matches!(&answer, Err(failure) if failure.exit == Exit::NotFound) {
            parts.json(name, answer);
        }
    }
    parts.json("ready.json", ready(&client).await);
    parts.text("metrics.txt", client.text("/metrics").await);
    Ok(())
}

/// Whether it is ready is an answer, whichever way it goes.
async fn ready(client: &Client) -> Result<Json, Failure> {
    match client.get::<Json>("/readyz").await {
        Err(failure) if failure.exit == Exit::Refused => {
            Ok(json!({ "ready": false, "status": StatusCode::SERVICE_UNAVAILABLE.as_u16() }))
        }
        answer => answer,
    }
}

fn as_json<T: Serialize>(value: &T) -> Result<Json, Failure> {
    serde_json::to_value(value)
        .map_err(|cause| Failure::new(Exit::Internal, "cannot write JSON").why(cause.to_string()))
}

/// All files in one folder of one archive, for their owner alone.
fn packed(files: &[(String, Vec<u8>)], now: Timestamp) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or(0));
        archive.append_data(&mut header, format!("muster-bundle/{name}"), content.as_slice())?;
    }
    archive.into_inner()?.finish()
}

fn text(written: &Written) -> String {
    let mut lines = vec![format!(
        "{}: {} parts in {} kB, {} secrets taken out",
        written.file.display(),
        written.parts.len(),
        written.bytes.div_ceil(1_000),
        written.redacted
    )];
    lines.extend(written.missing.iter().map(|Missing { part, why }| format!("  without {part}: {why}")));
    lines.push("it names members and their addresses: look into it before you pass it on (tar -xzf)".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_again() {
        let files = [("a.json".to_owned(), b"{}".to_vec()), ("b.txt".to_owned(), b"text".to_vec())];
        let packed = packed(&files, Timestamp::UNIX_EPOCH).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let unpacked: Vec<(String, Vec<u8>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mode().unwrap(), 0o600);
                let name = entry.path().unwrap().to_string_lossy().replace("muster-bundle/", "");
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (name, content)
            })
            .collect();
        assert_eq!(unpacked, files);
    }
}
