//! The body of a request, read whole, within a size and a time. It knows no route.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::protocol::{ErrorCode, MESSAGE_BYTES_MAX, Refusal};

/// How long a body may take: the largest one comes within it over a link of 200 kbit/s. Without an
/// end, each caller that goes away in the middle would hold a connection for good.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// The whole body, if it is not too large and comes in time.
///
/// # Errors
/// `too_large` when it is larger than a message may be, `malformed` when its chunks are not HTTP.
/// `unavailable`, so that it is sent again, when it breaks off, which says nothing of its size, or
/// does not come in time.
pub async fn read(body: Body) -> Result<Bytes, Refusal> {
    let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, gather(body)).await else {
        let detail = format!("send the whole body within {} s", BODY_TIMEOUT.as_secs());
        return Err(Refusal::new(ErrorCode::Unavailable, detail));
    };
    whole
}

async fn gather(body: Body) -> Result<Bytes, Refusal> {
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| failed(&error))?;
        if whole.len() + part.len() > MESSAGE_BYTES_MAX {
            let detail = format!("send at most {MESSAGE_BYTES_MAX} bytes at once");
            return Err(Refusal::new(ErrorCode::TooLarge, detail));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// What a body that could not be read to its end is told.
fn failed(error: &(dyn Error + 'static)) -> Refusal {
    tracing::debug!(error, "a body cannot be read");
    let mut causes = iter::successors(Some(error), |&cause| cause.source());
    let cause = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
    let is_wrong = |kind| matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidData);
    if cause.map(io::Error::kind).is_some_and(is_wrong) {
        return Refusal::new(ErrorCode::Malformed, "send the body in sound chunks");
    }
    let detail = "send it again; the body broke off before its end";
    Refusal::new(ErrorCode::Unavailable, detail)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let begun = tokio::time::Instant::now();
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(body).await.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(begun.elapsed(), BODY_TIMEOUT);
    }

    #[tokio::test]
    async fn only_a_body_that_breaks_off_may_come_again() {
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("x"))]);
        let wrong = stream::iter([Err::<Bytes, _>(io::Error::from(ErrorKind::InvalidInput))]);
        let large = Body::from(vec![b' '; MESSAGE_BYTES_MAX + 1]);
        let cases = [
            (Body::from_stream(broken), ErrorCode::Unavailable, true),
            (Body::from_stream(wrong), ErrorCode::Malformed, false),
            (large, ErrorCode::TooLarge, false),
        ];
        for (body, code, retryable) in cases {
            let refusal = read(body).await.unwrap_err();
            assert_eq!((refusal.code, refusal.retryable), (code, retryable));
        }
        assert_eq!(read(Body::from("{}")).await.unwrap(), Bytes::from_static(b"{}"));
    }
}
