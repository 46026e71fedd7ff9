//! Names of our own questions to upstream, by which one is known again that comes back around a loop of handlers.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The tokens of all questions that are open.
#[derive(Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<HashSet<String>>>);

/// The name of one question. It is forgotten when dropped.
pub(super) struct Token {
    text: String,
    all: Tokens,
}

impl Tokens {
    /// A new one: 128 random bits in hexadecimal digits, so that nobody else can say it.
    pub(super) fn issue(&self) -> Token {
        let mut bytes = [0_u8; 16];
        if let Err(error) = getrandom::fill(&mut bytes) {
            tracing::error!(%error, "no random numbers; loops of handlers go unnoticed");
        }
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.lock().insert(text.clone());
        Token { text, all: self.clone() }
    }

    /// Whether any of these is ours.
    pub(super) fn knows_any(&self, tokens: &[&str]) -> bool {
        !tokens.is_empty() && {
            let ours = self.0.lock();
            tokens.iter().any(|token| ours.contains(*token))
        }
    }
}

impl Token {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_for_as_long_as_its_question_is_open() {
        let tokens = Tokens::default();
        let (one, other) = (tokens.issue(), tokens.issue());
        let text = one.as_str().to_owned();
        assert_eq!(text.len(), 32);
        assert!(tokens.knows_any(&["x", &text]) && !tokens.knows_any(&["x"]) && !tokens.knows_any(&[]));
        drop(one);
        assert!(!tokens.knows_any(&[&text]) && tokens.knows_any(&[other.as_str()]));
    }
}
