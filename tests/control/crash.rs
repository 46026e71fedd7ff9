//! `kill -9` while documents arrive.

use waypost::testkit::node::eventually;
use waypost::testkit::process::{Dice, Site};

use super::fixtures::*;

#[tokio::test]
async fn a_node_that_is_killed_while_it_mirrors_has_a_whole_set_when_it_comes_back() {
    let at_hq = home_with_documents();
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("files")).expect("a directory");
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    let port = hq.plain.port();
    site.write_config(&format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\nnode = \"region\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
         [cache]\ndir = \"cache\"\nsize = \"16MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
         [[repository]]\nname = \"f\"\npath = \"/\"\ndirectory = \"files\"\n\n\
         [control]\nstate_dir = \"state\"\nhold = \"5s\"\nupstream = \"http://127.0.0.1:{port}/\"\n\n\
         [log]\nformat = \"json\"\n"
    ));
    let mut dice = Dice::seeded(7);
    let node = site.start().await;
    let sitelist = "/agent/v1/sitelist.xml";
    let agent = [("waypost-agent", "pc-berlin")];
    eventually("it has the first set", async || node.get(sitelist, &agent).await.status == 200).await;
    drop(node);
    for round in 0..4_u32 {
        let (old, new) = (format!("hq{round}.example"), format!("hq{}.example", round + 1));
        let old = if round == 0 { "hq.example".to_owned() } else { old };
        let node = site.start().await;
        change(&at_hq, "fleet.toml", &old, &new);
        reload(&hq).await;
        // Before, during or after the swap: whenever it strikes.
        tokio::time::sleep(std::time::Duration::from_millis(dice.below(60))).await;
        node.kill();
        let node = site.start().await;
        let answer = node.get(sitelist, &agent).await;
        assert_eq!(answer.status, 200, "at once, and from disk");
        let told = text(&answer);
        assert!(told.contains(&old) || told.contains(&new), "{told}");
        eventually("it has the newest", async || text(&node.get(sitelist, &agent).await).contains(&new))
            .await;
        drop(node);
    }
}
