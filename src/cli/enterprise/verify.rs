//! `loki enterprise audit verify` and `heads`: whether the audit log of a folder is what was
//! recorded, and what another folder or a file knows of its ends. They read the disk, also beside a
//! running program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use storage::inspect::Inspect;

use crate::audit::heads::{head, is_same_journal, sequence};
use crate::audit::verify::{Verdict, verify};
use crate::audit::witness::{Seen, seen};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::waiting::Waiting;
use crate::cli::{Done, look, output, output_of, past};
use crate::clock::rfc3339;

/// What else is compared.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Compare with the ends of this log that a peer saw: its data folder, or a file that
    /// `loki enterprise audit heads` wrote there (- for the standard input)
    #[arg(long, value_name = "PEER_HEADS")]
    against: Vec<PathBuf>,
    /// The public key that alone may have signed, in hexadecimal digits
    #[arg(long, value_parser = key)]
    key: Option<String>,
}

/// A public key of Ed25519.
fn key(text: &str) -> Result<String, String> {
    let is_key = text.len() == KEY_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wanted = || format!("give the {KEY_DIGITS} hexadecimal digits that verify shows as `keys`");
    is_key.then(|| text.to_ascii_lowercase()).ok_or_else(wanted)
}

/// The digits of a key.
const KEY_DIGITS: usize = 64;

/// Faults that are shown to a person.
const SHOWN_MAX: usize = 20;

/// Runs `verify`.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let dir = look(global)?.openclaw.data_dir;
    past::quietly(&dir)?;
    let waiting = Waiting::new(global, "verifying");
    let work = move || {
        let mut against = Vec::new();
        for place in &arguments.against {
            against.extend(ends(place)?);
        }
        let mut watch = |done, all| waiting.at(done, all);
        let verdict = verify(&dir, &against, arguments.key.as_deref(), &mut watch);
        let verdict = verdict.map_err(|text| Failure::new(Code::Store, text))?;
        let own = |one: &&Seen| is_same_journal(&one.head, &verdict.head);
        if !arguments.against.is_empty() && !against.iter().any(|one| own(&one)) {
            let text = "none of the peer's heads is of this log: it has never seen it";
            return Err(Failure::new(Code::NotSo, text));
        }
        Ok(verdict)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let verdict = done.map_err(|error| Failure::new(Code::Store, error.to_string()))??;
    output_of(global).object(&shown(&verdict), &["sound", "entries", "frames", "first_fault"]);
    let code = if verdict.faults.is_empty() { ExitCode::SUCCESS } else { Code::NotSo.into() };
    Ok(code)
}

fn shown(verdict: &Verdict) -> Value {
    let faults: Vec<&str> = verdict.faults.iter().map(|fault| fault.text.as_str()).collect();
    let last = sequence(&verdict.head).unwrap_or_default();
    let witnessed = verdict.witnessed.as_ref().map_or_else(
        || "by nobody so far".to_owned(),
        |(frame, at, by)| {
            let since = last.saturating_sub(*frame);
            let at = rfc3339(*at);
            format!("up to frame {frame} of {at} by {by}; {since} frames since by nobody")
        },
    );
    let last_signed = verdict.last_signed.map(|(frame, at)| {
        json!({ "frame": frame, "timestamp": rfc3339(at), "frames_since": last - frame })
    });
    json!({
        "sound": verdict.faults.is_empty(),
        "entries": verdict.entries,
        "frames": verdict.frames,
        "first_fault": faults.first(),
        "faults": faults.iter().take(SHOWN_MAX).collect::<Vec<_>>(),
        "faults_in_all": faults.len(),
        "head": verdict.head,
        "signed_heads": verdict.signed,
        "last_signed": last_signed,
        "keys": verdict.keys,
        "witnessed": witnessed,
        "compared": verdict.compared,
    })
}

/// Runs `heads`: the newest end of this folder's log, and the ends of others that it saw.
pub fn heads(global: &Global) -> Done {
    let dir = look(global)?.openclaw.data_dir;
    let look = past::quietly(&dir)?;
    for one in known(&look, &dir) {
        // A reader that went away wants no more.
        if !output::raw(format!("{}\n", json!(one)).as_bytes()) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn known(look: &Inspect, dir: &Path) -> Vec<Seen> {
    let by = dir.display().to_string();
    let own = Seen { by: by.clone(), head: head(look.reader()) };
    seen(&look.state().ledger, &by).into_iter().chain([own]).collect()
}

/// The ends that a peer's folder or file names.
fn ends(place: &Path) -> Result<Vec<Seen>, Failure> {
    let usage = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format!("{}: {error}", place.display()))
    };
    if place.is_dir() {
        return Ok(known(&past::quietly(place)?, place));
    }
    let text = if place == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(place)
    };
    let by = place.display().to_string();
    let line = |line: &str| match serde_json::from_str::<Seen>(line) {
        Ok(seen) => Ok(seen),
        Err(_) if sequence(line).is_some() => Ok(Seen { by: by.clone(), head: line.to_owned() }),
        Err(_) => Err(usage(&"a line is no head; write it with `loki enterprise audit heads`")),
    };
    let text = text.map_err(|error| usage(&error))?;
    text.lines().map(str::trim).filter(|text| !text.is_empty()).map(line).collect()
}
