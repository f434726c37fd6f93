//! `loki store check`: reads all of the journal and names what is damaged, where, and which
//! messages it touches; of a backup that was never opened also which files are not those that were
//! copied. It works beside a running program and changes nothing.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use storage::backup::differing;
use storage::inspect::{Checked, check};
use storage::journal::Damage;
use storage::record::EntryId;

use super::open::check_there;
use crate::audit::heads::hex;
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of};

/// How thoroughly.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Compare each message's content with its digest as well
    #[arg(long)]
    bodies: bool,
}

/// What is shown of the damage, the most important first.
const COLUMNS: [&str; 6] = ["segment", "offset", "bytes", "first", "last", "reason"];

/// Runs the command.
pub async fn run(global: &Global, arguments: &Arguments) -> Done {
    let dir = look(global)?.openclaw.data_dir;
    check_there(&dir)?;
    let (there, bodies) = (dir.clone(), arguments.bodies);
    let checked = tokio::task::spawn_blocking(move || check(&there, bodies)).await;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    let checked = checked.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let differing = differing(&dir).map_err(|error| failed(&error))?;
    let damage: Vec<Value> = checked.damage.iter().map(damage).collect();
    let mut answer = summary(&dir, &checked);
    if let Some(differing) = &differing {
        let names = differing.iter().map(|path| path.display().to_string());
        answer["backup_differs"] = names.collect::<Vec<_>>().into();
    }
    if global.json {
        answer["damage"] = damage.into();
        answer["messages"] = json!(checked.touched.ids);
        answer["bad_bodies"] = bad_bodies(&checked).into();
    }
    output_of(global).object(&answer, &["store", "sound", "segments", "frames", "bytes"]);
    if !global.json {
        tell(global, &checked);
    }
    let is_whole = differing.is_none_or(|differing| differing.is_empty());
    Ok(if checked.is_sound() && is_whole { ExitCode::SUCCESS } else { Code::NotSo.into() })
}

fn summary(dir: &Path, checked: &Checked) -> Value {
    json!({
        "store": dir.display().to_string(),
        "sound": checked.is_sound(),
        "segments": checked.segments,
        "frames": checked.frames,
        "bytes": checked.bytes,
        "hash": checked.hash.map(|hash| hex(&hash)),
        "messages_unnamed": checked.touched.unnamed,
        "checkpoints_damaged": checked.checkpoints,
        "bodies": checked.bodies,
    })
}

fn bad_bodies(checked: &Checked) -> Vec<Value> {
    let one =
        |(entry, id): &(EntryId, String)| json!({ "entry": entry.to_string(), "message_id": id });
    checked.bad_bodies.iter().map(one).collect()
}

fn damage(damage: &Damage) -> Value {
    let lost = damage.first <= damage.last;
    json!({
        "segment": damage.segment.file_name().unwrap_or_default().to_string_lossy(),
        "offset": damage.offset,
        "bytes": damage.len,
        "first": lost.then_some(damage.first),
        "last": lost.then_some(damage.last),
        "reason": damage.reason.to_string(),
    })
}

/// The same for a person, and what there is to do.
fn tell(global: &Global, checked: &Checked) {
    if !checked.damage.is_empty() {
        let rows: Vec<Value> = checked.damage.iter().map(damage).collect();
        output_of(global).texts(&rows, &COLUMNS);
    }
    for id in &checked.touched.ids {
        output::say(&format!("records about message {id} are lost"));
    }
    for (entry, id) in &checked.bad_bodies {
        output::say(&format!("the content of message {id}, accepted by {entry}, is damaged"));
    }
    if !checked.damage.is_empty() {
        output::say(
            "a start goes on with what is sound and keeps the rest in the journal's quarantine; \
             what is lost is only in a backup, or with the peers",
        );
    }
}
