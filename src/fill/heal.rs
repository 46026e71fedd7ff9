//! Healing: one block fetched again by range, proven by its own digest.
//!
//! Used when a stored copy turned out missing or wrong, and by readers of a fill that could not be stored whose
//! block has left memory. However many readers find the same bad block, one of them fetches.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Fills;
use super::body::{StoredAt, start_of};
use super::cause::Cause;
use super::job::Supply;
use super::open::{Line, ask_one};
use super::state::Fill;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::cache::{Entry, EntryBody};
use crate::protocol::headers::header_map;
use crate::protocol::reply::ReplyKind;
use crate::upstream::{Ask, Span};

type Cell = Arc<OnceCell<Result<Bytes, Cause>>>;

/// Heals under way, by the digest of the block.
#[derive(Default)]
pub(super) struct Heals(Mutex<HashMap<Digest, Cell>>);

impl Heals {
    async fn once(
        &self,
        digest: Digest,
        fetch: impl Future<Output = Result<Bytes, Cause>>,
    ) -> Result<Bytes, Cause> {
        let cell = Arc::clone(self.0.lock().entry(digest).or_default());
        let result = cell.get_or_init(|| fetch).await.clone();
        let mut heals = self.0.lock();
        if heals.get(&digest).is_some_and(|it| Arc::ptr_eq(it, &cell)) {
            heals.remove(&digest);
        }
        result
    }
}

/// Fetches a block of a stored entry again and puts it back in its place.
pub(super) async fn heal_entry(
    fills: &Fills,
    supply: &Supply,
    entry: &Entry,
    index: usize,
) -> Result<Bytes, Cause> {
    let EntryBody::Blocks(blocks) = &entry.body else { return Err(Cause::Internal) };
    let Some(block) = blocks.get(index) else { return Err(Cause::Internal) };
    let store = &fills.0.store;
    let fetch = async {
        let (path, query) = path_of(supply, entry.key.as_str());
        let token = fills.0.tokens.issue();
        let ask = Ask {
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: header_map(&entry.head.selecting),
            range: span(index, entry.block_len(index)),
            loop_tokens: vec![token.as_str().to_owned()],
        };
        let result = fetch_block(supply, fills.0.clock.now(), &ask, block.digest).await;
        supply.events.healed(result.is_ok());
        match &result {
            Ok(bytes) => {
                if let Err(error) = store.rewrite_block(block.digest, bytes.clone()).await {
                    tracing::warn!(key = %entry.key, index, %error, "a healed block could not be written back");
                }
            }
            Err(cause) if is_passing(cause) => {
                tracing::error!(key = %entry.key, index, %cause, "a bad block cannot be fetched again yet");
            }
            Err(cause) => {
                tracing::error!(key = %entry.key, index, %cause, "a bad block is not to be had any more; the entry is dropped");
                store.remove(entry.key.as_str());
            }
        }
        result
    };
    fills.0.heals.once(block.digest, fetch).await
}

/// Whether asking later may help. Then the entry stays, and with it all its good blocks: dropping it while the WAN is
/// down would lose the rest of a large file for one bad block.
const fn is_passing(cause: &Cause) -> bool {
    !matches!(cause, Cause::Changed | Cause::Refused(404 | 410 | 416))
}

/// A piece of a block that a running fill has sealed; fetched again where it is gone or wrong, as it may be for a
/// slow reader of a body that could not be stored.
pub(super) async fn read_or_heal(fill: &Fill, place: &StoredAt, max: usize) -> Result<Bytes, Cause> {
    match fill.store.piece(&place.block, place.len, place.offset, max).await {
        Ok(bytes) => Ok(bytes),
        Err(_) => heal_arriving(fill, place).await,
    }
}

/// The rest of a sealed block from `place` on, fetched again.
pub(super) async fn heal_arriving(fill: &Fill, place: &StoredAt) -> Result<Bytes, Cause> {
    let digest = place.block.digest;
    let fetch = async {
        let token = fill.tokens.issue();
        let ask = Ask {
            path: fill.path.clone(),
            query: fill.query.clone(),
            headers: fill.headers.clone(),
            range: span(place.index, place.len),
            loop_tokens: vec![token.as_str().to_owned()],
        };
        let bytes = fetch_block(&fill.supply, fill.now(), &ask, digest).await;
        fill.supply.events.healed(bytes.is_ok());
        let bytes = bytes?;
        fill.store.keep_in_memory(digest, &bytes);
        Ok(bytes)
    };
    Ok(fill.heals.once(digest, fetch).await?.slice(place.offset..))
}

fn span(index: usize, len: usize) -> Option<Span> {
    let start = start_of(index);
    Some(Span { start, end: Some(start + len as u64), if_range: None })
}

/// The path and query within the repository that a key stands for.
fn path_of<'a>(supply: &Supply, key: &'a str) -> (&'a str, Option<&'a str>) {
    let target =
        key.strip_prefix(supply.name.as_str()).and_then(|rest| rest.strip_prefix(':')).unwrap_or(key);
    let target = target.split('\n').next().unwrap_or(target);
    let target = target.strip_prefix(supply.prefix.as_str()).unwrap_or(target);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

async fn fetch_block(supply: &Supply, now: Timestamp, ask: &Ask, digest: Digest) -> Result<Bytes, Cause> {
    let Some(Span { start, end: Some(end), .. }) = ask.range else { return Err(Cause::Internal) };
    let len = usize::try_from(end - start).map_err(|_| Cause::Internal)?;
    let mut last = Cause::Unreachable("no upstream is up".to_owned());
    for upstream in supply.sources.candidates(now) {
        last = match ask_one(supply, &upstream, ask).await {
            Ok(line) => match read_block(line, start, len).await {
                Ok(bytes) if Digest::of(&bytes) == digest => return Ok(bytes),
                Ok(_) => Cause::Changed,
                Err(cause) => cause,
            },
            Err(cause) => cause,
        };
    }
    Err(last)
}

/// The block's bytes out of a 206, or out of a 200 where upstream does not serve ranges.
async fn read_block(mut line: Line, start: u64, len: usize) -> Result<Bytes, Cause> {
    let mut skip = match line.reply.kind {
        ReplyKind::Part { .. } => 0,
        ReplyKind::Whole { .. } => start,
        _ => return Err(Cause::Refused(line.reply.status.as_u16())),
    };
    let mut block = BytesMut::with_capacity(len);
    while block.len() < len {
        let mut frame = match line.reply.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Cause::Broken(error.blame().to_owned())),
            None => return Err(Cause::Changed),
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(frame.len());
        skip -= skipped as u64;
        let _ = frame.split_to(skipped);
        block.extend_from_slice(&frame.split_to(frame.len().min(len - block.len())));
    }
    Ok(block.freeze())
}
