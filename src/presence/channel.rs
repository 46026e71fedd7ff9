//! `GET /agent/v1/channel`: the stream, a WebSocket (RFC 6455) in the task of its connection.
//!
//! Agents say nothing on it but pongs and an end; what else is text of JSON is taken for a sign of life, so that a
//! later agent may say more. Anything else ends the stream with a reason. Buffers are small: an idle stream is mostly
//! its TLS session.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use super::AgentId;
use super::api::{Answer, no_channel, refused};
use super::outbox::{Outbox, Say};
use super::plane::Presence;
use super::state::Cause;
use crate::protocol::agent_api::{Contact, Message};
use crate::server::{OnUpgrade, Upgraded};

/// Bytes read at once, and kept while idle: pongs have six.
const READ_BYTES: usize = 1 << 10;
/// Bytes of one message of an agent.
const MESSAGE_BYTES: usize = 4 << 10;
/// Bytes that may wait for an agent that does not read.
const UNSENT_BYTES: usize = 16 << 10;

/// A link of the registry. Dropping it says that the connection was cut under it.
struct Held {
    presence: Arc<Presence>,
    id: AgentId,
    number: u64,
    cause: Cause,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.presence.close_link(&self.id, self.number, self.cause);
    }
}

/// The answer to a request for a channel.
pub(super) fn open<B>(presence: &Arc<Presence>, id: &AgentId, request: &Request<B>) -> Answer {
    if request.version() != Version::HTTP_11 {
        return no_channel("a channel needs HTTP/1.1");
    }
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| {
        has(headers, &UPGRADE, "websocket")
            && has(headers, &CONNECTION, "upgrade")
            && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
    });
    let Some(key) = key else { return no_channel("a channel is a WebSocket") };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return no_channel("a channel is a WebSocket");
    };
    let (number, outbox) = match presence.open_link(id, Contact::Stream) {
        Ok(link) => link,
        Err(refusal) => return refused(refusal),
    };
    let held = Held { presence: Arc::clone(presence), id: id.clone(), number, cause: Cause::WriteFailed };
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.extensions_mut().insert(OnUpgrade::new(move |stream| serve(held, outbox, stream)));
    answer
}

/// Whether a list of words in a header has this one.
fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(word))
}

/// How a stream ends.
enum End {
    /// By the agent, or under both.
    Over(Cause),
    /// By us, with these words.
    Say(CloseCode, &'static str, Option<Cause>),
}

async fn serve(mut held: Held, outbox: Arc<Outbox>, stream: Upgraded) {
    let leave = stream.leave();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(UNSENT_BYTES)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let end = loop {
        tokio::select! {
            frame = socket.next() => match heard(frame) {
                Ok(()) => held.presence.heard(&held.id, held.number),
                Err(end) => break end,
            },
            say = outbox.next() => {
                let frame = match say {
                    Say::Message(message) => render(&message),
                    Say::Ping => Frame::Ping(bytes::Bytes::new()),
                    Say::Close => break End::Say(CloseCode::Policy, "no longer the agent's link", None),
                };
                if socket.send(frame).await.is_err() {
                    break End::Over(Cause::WriteFailed);
                }
            }
            () = leave.asked() => {
                // What cannot be said any more needs not be.
                let _ = socket.send(render(&Message::Shutdown)).await;
                break End::Say(CloseCode::Away, "the handler is going away", Some(Cause::Closed));
            }
        }
    };
    match end {
        End::Over(cause) => held.cause = cause,
        End::Say(code, reason, cause) => {
            held.cause = cause.unwrap_or(Cause::Replaced);
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = socket.close(Some(frame)).await;
        }
    }
}

fn render(message: &Message) -> Frame {
    Frame::text(serde_json::to_string(message).unwrap_or_default())
}

/// What arrived: a sign of life, or an end.
fn heard(frame: Option<Result<Frame, Error>>) -> Result<(), End> {
    let bad = |reason| Err(End::Say(CloseCode::Unsupported, reason, Some(Cause::BadMessage)));
    match frame {
        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Ok(()),
        Some(Ok(Frame::Text(text))) => match serde_json::from_str::<serde::de::IgnoredAny>(text.as_str()) {
            Ok(_) => Ok(()),
            Err(_) => bad("a message is JSON"),
        },
        Some(Ok(Frame::Binary(_) | Frame::Frame(_))) => bad("a message is text"),
        Some(Err(Error::Capacity(_))) => {
            Err(End::Say(CloseCode::Size, "a message has 4 KiB at most", Some(Cause::BadMessage)))
        }
        Some(Err(Error::Protocol(error))) if !is_cut(&error) => {
            Err(End::Say(CloseCode::Protocol, "not a WebSocket's frame", Some(Cause::BadMessage)))
        }
        Some(Err(Error::Utf8(_))) => {
            Err(End::Say(CloseCode::Invalid, "text is UTF-8", Some(Cause::BadMessage)))
        }
        Some(Ok(Frame::Close(_)) | Err(_)) | None => Err(End::Over(Cause::Closed)),
    }
}

/// Whether the connection ended without the word for it.
fn is_cut(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, ProtocolError::ResetWithoutClosingHandshake)
}
