//! What an agent may be called: the one rule behind certificates, headers, documents and lists.

use super::limits::AGENT_ID_BYTES;

/// Whether this can be the id of an agent: 1 to 128 of `[A-Za-z0-9._:{}-]`. Case is kept and ids are compared as they
/// are.
pub fn is_agent_id(text: &str) -> bool {
    (1..=AGENT_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:{}-".contains(&byte))
}
