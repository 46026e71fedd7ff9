//! The line to the handler between check-ins: a WebSocket that is held open, or long polls. A task of its own, which
//! hands over what it hears and ends when the line does.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, WebSocketConfig};

use super::link::{Link, TalkError};
use super::talk;
use crate::base::limits::AGENT_ANSWER_BYTES;
use crate::protocol::agent_api::{Contact, Message};

/// A handler pings an idle stream after two minutes: who is silent for longer than this is asked …
const SILENCE: Duration = Duration::from_secs(150);

/// … and gone if there is no answer for this long.
const LAST_CHANCE: Duration = Duration::from_secs(30);

/// After this long a poll is held, not refused.
const HELD: Duration = Duration::from_secs(1);

/// Both directions of a stream have so much; what is said over it fits into a tenth.
const BUFFER: usize = 4 << 10;

/// What came over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is open.
    Open,
    /// The handler says something.
    Said(Message),
    /// It is over; why, for people.
    Lost(String),
}

/// Holds a line of this kind to `to`, and tells what it hears until it is lost or nobody listens. `number` is told with
/// everything, so that a listener knows one line from the next.
pub(super) async fn hold(
    mut link: Link,
    to: String,
    contact: Contact,
    seen: Option<u64>,
    (number, tell): (u64, mpsc::Sender<(u64, Heard)>),
) {
    let ended = match contact {
        Contact::Stream => stream(&link, &to, number, &tell).await,
        Contact::Tunnel => tunnel(&mut link, &to, seen, (number, &tell)).await,
        Contact::Checkin => return,
    };
    if let Err(error) = ended {
        drop(tell.send((number, Heard::Lost(error.to_string()))).await);
    }
}

type Tell = mpsc::Sender<(u64, Heard)>;

async fn stream(link: &Link, to: &str, number: u64, tell: &Tell) -> Result<(), TalkError> {
    let broke = |error: tokio_tungstenite::tungstenite::Error| TalkError::Broke(error.to_string());
    let request = link.upgrade(to, "/agent/v1/channel")?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * AGENT_ANSWER_BYTES)
        .max_message_size(Some(AGENT_ANSWER_BYTES))
        .max_frame_size(Some(AGENT_ANSWER_BYTES));
    let io = link.open(to).await?;
    let opened = timeout(SILENCE, client_async_with_config(request, io, Some(config))).await;
    let (mut line, _) = opened.map_err(|_| TalkError::TimedOut("upgrade"))?.map_err(broke)?;
    if tell.send((number, Heard::Open)).await.is_err() {
        return Ok(());
    }
    let mut asked = false;
    loop {
        let patience = if asked { LAST_CHANCE } else { SILENCE };
        let frame = tokio::select! {
            frame = timeout(patience, line.next()) => frame,
            () = tell.closed() => return Ok(()),
        };
        match frame {
            Err(_) if asked => return Err(TalkError::TimedOut("sign of life")),
            Err(_) => {
                asked = true;
                line.send(Frame::Ping(bytes::Bytes::new())).await.map_err(broke)?;
                continue;
            }
            Ok(None) => return Err(TalkError::Broke("the handler closed the channel".to_owned())),
            Ok(Some(frame)) => {
                asked = false;
                match frame.map_err(broke)? {
                    Frame::Text(text) => {
                        let said = serde_json::from_str(&text);
                        let said = said.map_err(|error| TalkError::NotUnderstood(error.to_string()))?;
                        if tell.send((number, Heard::Said(said))).await.is_err() {
                            return Ok(());
                        }
                    }
                    Frame::Close(_) => {
                        return Err(TalkError::Broke("the handler closed the channel".to_owned()));
                    }
                    // Pings are answered by the crate with the next read.
                    Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => {}
                }
            }
        }
    }
}

async fn tunnel(
    link: &mut Link,
    to: &str,
    mut seen: Option<u64>,
    (number, tell): (u64, &Tell),
) -> Result<(), TalkError> {
    let mut open = false;
    loop {
        let polled = talk::poll(link, to, seen);
        tokio::pin!(polled);
        let polled = loop {
            tokio::select! {
                polled = &mut polled => break polled?,
                // A poll that is not refused at once is being held.
                () = sleep(HELD), if !open => {
                    open = true;
                    if tell.send((number, Heard::Open)).await.is_err() {
                        return Ok(());
                    }
                }
                () = tell.closed() => return Ok(()),
            }
        };
        if !std::mem::replace(&mut open, true) && tell.send((number, Heard::Open)).await.is_err() {
            return Ok(());
        }
        for message in polled.messages {
            if let Message::Wake { id } = message {
                seen = Some(id);
            }
            if tell.send((number, Heard::Said(message))).await.is_err() {
                return Ok(());
            }
        }
    }
}
