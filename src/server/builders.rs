//! What is asked of hyper, and why. One place for both versions.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;

use super::Options;
use crate::base::limits::{HEAD_BYTES, PIECE_BYTES};

/// Bytes hyper buffers of pipelined requests, and of an answer before it writes: a piece is written at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Agents upload nothing but heads: the smallest windows HTTP/2 allows without a settings dance.
const RECEIVE_WINDOW: u32 = 65_535;

/// Bytes of one HTTP/2 stream's answer that h2 may hold. With the piece hyper has in hand and the TLS buffer this
/// keeps an active download under its 350 KiB.
const STREAM_BUFFER: usize = PIECE_BYTES;

/// Streams a client reset before we saw them; one more ends the connection (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Streams we had to reset because of the client's errors; more end the connection (CVE-2025-8671).
const ERROR_RESETS: usize = 64;

/// Ready-made settings; a connection clones nothing but small values.
pub(super) struct Builders {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl Builders {
    /// No timer is given to either: every deadline is the sweeper's. HTTP/2 pings are off on purpose: behind the
    /// queue of a slow link their answer comes late and would end a healthy download, while dead clients are found
    /// by TCP and by the deadlines.
    pub(super) fn new(options: &Options) -> Self {
        let mut http1 = http1::Builder::new();
        // Fields beyond the limit are refused in `connection`: hyper's own lower limit would allocate per request.
        http1
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .half_close(false)
            .keep_alive(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_concurrent_streams(options.streams)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .initial_stream_window_size(RECEIVE_WINDOW)
            .initial_connection_window_size(RECEIVE_WINDOW)
            .max_send_buf_size(STREAM_BUFFER)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS);
        Self { http1, http2 }
    }
}
