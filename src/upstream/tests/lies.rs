//! Replies that lie, and what is left of them.

use super::*;

/// Every case gets an origin of its own, answered by its bytes; then the path is well-behaved and asked again: what
/// comes must be that file, never the rest of the lie.
#[tokio::test]
async fn every_lie_is_refused_and_leaves_no_connection_behind() {
    for case in corpus::replies() {
        let origin = Origin::start().await;
        origin.set(
            "/f",
            Script {
                raw: Some(Raw { bytes: case.bytes.into(), close: case.close, later: None }),
                ..Script::default()
            },
        );
        let upstream = upstream(&origin);
        let mut question = match case.asked {
            Question::Range => ask_range("f", 10, Some(20)),
            Question::Plain | Question::Conditional => ask("f"),
        };
        if case.asked == Question::Conditional {
            question.headers.insert("if-none-match", HeaderValue::from_static("\"v1\""));
        }
        let outcome = outcome_of(&upstream, &question).await;
        let id = case.id;
        let keeps = match case.outcome {
            ReplyOutcome::Lie(word) | ReplyOutcome::NoHead(word) => {
                assert_eq!(outcome, Err(word.to_owned()), "{id}");
                false
            }
            ReplyOutcome::Body(word) => {
                assert_eq!(outcome, Err(word.to_owned()), "{id}");
                false
            }
            ReplyOutcome::Unproven => {
                assert_eq!(outcome, Ok(false), "{id}");
                false
            }
            ReplyOutcome::OnceOnly => {
                assert_eq!(outcome, Ok(true), "{id}");
                false
            }
            ReplyOutcome::Good => {
                assert_eq!(outcome, Ok(true), "{id}");
                true
            }
        };
        origin.set("/f", Script::file(9, 70_000));
        assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(9, 70_000), "{id}");
        assert_eq!(origin.connections(), if keeps { 1 } else { 2 }, "{id}");
    }
}

/// Whether the body ended proven, or the word of the refusal.
async fn outcome_of(upstream: &Upstream, question: &Ask) -> Result<bool, String> {
    let mut reply = upstream.fetch(question).await.map_err(|error| error.blame().to_owned())?;
    read(&mut reply).await.map_err(|error| error.blame().to_owned())?;
    Ok(reply.kind != ReplyKind::Whole { length: None, framed: false })
}

#[tokio::test]
async fn bytes_that_come_late_behind_a_reply_close_the_idle_connection() {
    let origin = Origin::start().await;
    let gate = Duration::from_millis(50);
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let raw = Raw {
        bytes: "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".into(),
        close: false,
        later: Some((gate, evil.into())),
    };
    origin.set("/f", Script { raw: Some(raw), ..Script::default() });
    let upstream = upstream(&origin);
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), b"abc");
    assert_eq!(upstream.kept_connections(), 1);
    tokio::time::sleep(gate * 4).await;
    origin.set("/f", Script::file(9, 10));
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(9, 10));
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_mirror_that_ignores_if_range_is_told_by_its_part() {
    let origin = Origin::start().await;
    let becomes = Some((1, "\"v2\"".to_owned(), 99));
    origin.set("/f", Script { becomes, ranges: Ranges::IgnoreCondition, ..Script::file(7, 1_000) });
    let upstream = upstream(&origin);
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(7, 1_000));
    let mut question = ask_range("f", 500, None);
    if let Some(span) = &mut question.range {
        span.if_range = Some(HeaderValue::from_static("\"v1\""));
    }
    // The gate cannot know whose bytes these are; the fill compares the ETag and the overlap.
    let mut reply = upstream.fetch(&question).await.unwrap();
    assert_eq!(reply.headers.get("etag").unwrap(), "\"v2\"");
    assert_eq!(read(&mut reply).await.unwrap(), content::piece(99, 500, 500));
    for (ranges, lie) in [
        (Ranges::Shifted(5), Lie::PartElsewhere),
        (Ranges::UnknownTotal, Lie::PartUnclear),
        (Ranges::Unplaced, Lie::PartUnclear),
    ] {
        origin.set("/f", Script { ranges, ..Script::file(7, 1_000) });
        let error = upstream.fetch(&ask_range("f", 500, None)).await.unwrap_err();
        assert_eq!(error, FetchError::Lie(lie), "{ranges:?}");
    }
}
