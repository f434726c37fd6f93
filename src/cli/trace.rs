//! The trace that a command belongs to: the one that it is given, or that of the program that
//! started it, as tools that know traces tell each other.

use clap::Args;

use crate::protocol::is_traceparent;
use crate::trace::VARIABLE;

/// The trace.
#[derive(Args, Clone, Debug, Default)]
pub struct Trace {
    /// The W3C trace that it belongs to, instead of that in the variable TRACEPARENT
    #[arg(long, value_parser = read)]
    traceparent: Option<String>,
}

impl Trace {
    /// The trace, if there is one.
    pub fn context(self) -> Option<String> {
        self.traceparent.or_else(inherited)
    }
}

/// The trace of the program that started this one; one that is not valid is ignored, as the W3C
/// asks.
pub fn inherited() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|given| is_traceparent(given))
}

/// One that a person gave is not ignored.
fn read(text: &str) -> Result<String, String> {
    let wanted = "a W3C traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>";
    if is_traceparent(text) { Ok(text.to_owned()) } else { Err(wanted.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_trace_of_a_person_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(good).as_deref(), Ok(good));
        assert!(read("00-1-2-3").is_err() && read("").is_err());
        let given = Trace { traceparent: Some(good.to_owned()) };
        assert_eq!(given.context().as_deref(), Some(good));
    }
}
