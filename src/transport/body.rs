//! The body of a request, read whole, within a size and a time. It knows no route.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;

use crate::protocol::{ErrorCode, MESSAGE_BYTES_MAX, Refusal};

/// How long a body may take: the largest one comes within it over a link of 200 kbit/s. Without an
/// end, each caller that goes away in the middle would hold a connection for good.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// The whole body, if it is not too large and comes in time.
///
/// # Errors
/// `too_large` when it is larger than a message may be or breaks off, `unavailable` when it did not
/// come in time.
pub async fn read(body: Body) -> Result<Bytes, Refusal> {
    let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MESSAGE_BYTES_MAX)).await
    else {
        let detail = format!("send the whole body within {} s", BODY_TIMEOUT.as_secs());
        return Err(Refusal::new(ErrorCode::Unavailable, detail));
    };
    whole.map_err(|_| {
        let detail = format!("send at most {MESSAGE_BYTES_MAX} bytes at once, and all of them");
        Refusal::new(ErrorCode::TooLarge, detail)
    })
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
    async fn a_body_that_breaks_off_or_is_too_large_is_refused() {
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("x"))]);
        let large = Body::from(vec![b' '; MESSAGE_BYTES_MAX + 1]);
        for body in [Body::from_stream(broken), large] {
            assert_eq!(read(body).await.unwrap_err().code, ErrorCode::TooLarge);
        }
        assert_eq!(read(Body::from("{}")).await.unwrap(), Bytes::from_static(b"{}"));
    }
}
