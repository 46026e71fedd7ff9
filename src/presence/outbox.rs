//! What waits to be said to one agent over its stream or tunnel. Whoever says something never waits.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::agent_api::Message;

/// Messages that wait for one agent; the oldest goes for a new one. A wake-up is repeated anyway.
const WAITING: usize = 16;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// A message of the protocol.
    Message(Message),
    /// Are you there?
    Ping,
    /// This link is none any more.
    Close,
}

/// The way to one agent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<VecDeque<Say>>,
    bell: Notify,
}

impl Outbox {
    pub(super) fn push(&self, say: Say) {
        {
            let mut waiting = self.waiting.lock();
            if !waiting.contains(&say) {
                if waiting.len() >= WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(say);
            }
        }
        self.bell.notify_one();
    }

    /// The next to say; waits for one.
    pub(super) async fn next(&self) -> Say {
        loop {
            if let Some(say) = self.waiting.lock().pop_front() {
                return say;
            }
            self.bell.notified().await;
        }
    }

    /// All messages that wait now, without wake-ups up to the one that was seen; whether the link was closed.
    pub(super) fn drain(&self, seen: Option<u64>) -> (Vec<Message>, bool) {
        let mut closed = false;
        let mut messages = Vec::new();
        for say in self.waiting.lock().drain(..) {
            match say {
                Say::Message(Message::Wake { id }) if seen.is_some_and(|seen| id <= seen) => {}
                Say::Message(message) => messages.push(message),
                Say::Close => closed = true,
                Say::Ping => {}
            }
        }
        (messages, closed)
    }

    /// Returns when something waits.
    pub(super) async fn rung(&self) {
        loop {
            if !self.waiting.lock().is_empty() {
                return;
            }
            self.bell.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_said_once_in_order_and_within_a_bound() {
        let outbox = Outbox::default();
        for id in 0..20 {
            outbox.push(Say::Message(Message::Wake { id }));
        }
        outbox.push(Say::Ping);
        outbox.push(Say::Ping);
        outbox.rung().await;
        assert_eq!(outbox.next().await, Say::Message(Message::Wake { id: 5 }));
        let (messages, closed) = outbox.drain(Some(17));
        assert_eq!(messages, [Message::Wake { id: 18 }, Message::Wake { id: 19 }]);
        assert!(!closed);
        outbox.push(Say::Close);
        assert_eq!(outbox.drain(None), (Vec::new(), true));
    }
}
