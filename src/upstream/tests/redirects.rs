//! Redirects.

use super::*;

#[tokio::test]
async fn redirects_are_followed_within_the_configured_hosts_only() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    other.set("/f", Script::file(5, 100));
    origin.set("/f", Script::file(6, 100));
    origin.set("/here", Script::redirect("f"));
    origin.set("/there", Script::redirect(&format!("{}f", other.url())));
    origin.set("/loop", Script::redirect("/loop"));
    origin.set("/metadata", Script::redirect("http://169.254.169.254/latest/"));
    origin.set("/nowhere", Script::redirect("ftp://x/"));
    let strict = upstream(&origin);
    assert_eq!(fetch(&strict, &ask("here")).await.unwrap(), content::whole(6, 100));
    let problem = async |upstream: &Upstream, path: &str| match upstream.fetch(&ask(path)).await {
        Err(FetchError::Redirect { problem, .. }) => problem,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(problem(&strict, "there").await, RedirectProblem::Host);
    assert_eq!(problem(&strict, "metadata").await, RedirectProblem::Host);
    assert_eq!(problem(&strict, "nowhere").await, RedirectProblem::Unusable);
    assert_eq!(problem(&strict, "loop").await, RedirectProblem::TooMany);
    assert_eq!(origin.counts("/loop").requests, 4);
    assert_eq!(other.connections(), 0);
    let options = Options { redirect_hosts: vec![other.authority()], ..options(&origin) };
    let open = Upstream::new(options, Clock::system()).unwrap();
    let mut question = ask("there");
    question.headers.insert("authorization", HeaderValue::from_static("secret"));
    assert_eq!(fetch(&open, &question).await.unwrap(), content::whole(5, 100));
    assert!(origin.heads().concat().contains("secret"));
    assert!(!other.heads().concat().contains("secret"));
    assert_eq!(strict.health().failures() + open.health().failures(), 0);
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let ca = Authority::new("ca");
    let (origin, plain) = (Origin::start_tls(&ca.server(&["127.0.0.1"]), None).await, Origin::start().await);
    plain.set("/f", Script::file(5, 100));
    origin.set("/down", Script::redirect(&format!("{}f", plain.url())));
    let options = Options {
        trust: Trust::Exactly(ca.pem().into_bytes()),
        redirect_hosts: vec![plain.authority()],
        ..options(&origin)
    };
    let upstream = Upstream::new(options, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("down")).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect { problem: RedirectProblem::Plaintext, .. }), "{error}");
    assert_eq!(plain.connections(), 0);
}
