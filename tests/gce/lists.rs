//! Lists that are not whole: of a zone, of a project.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_or_a_project_that_is_away_keeps_what_it_had_and_holds_up_no_other() {
    let address = |host| Ipv4Addr::new(127, 0, 88, host);
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(address(200)).await;
    let metadata = emulator.boot(Machine::new(1, address(1))).await;
    let in_zone = |host: u8, zone| Machine { zone, ..Machine::new(host, address(host)) };
    emulator.add(in_zone(2, "us-central1-a"));
    emulator.add(in_zone(3, "europe-west1-b"));
    // Nobody has made anything in the second project yet, and it may as well be misspelt.
    let node = node(&emulator, &key, &origin, &metadata, "bind = \"127.0.88.1\"")
        .env("CACHECLUSTER_DISCOVERY__GCE__INTERVAL", "1s")
        .env("CACHECLUSTER_MATCH__REGIONS", "us-central1")
        .env("CACHECLUSTER_MATCH__PROJECTS", "my-project,other-project")
        .start();
    says(&node, "project other-project: 404 Not Found").await;
    says(&node, "check [match]").await;
    assert_eq!(source(&node).await["found"], 1);
    emulator.add(Machine { project: "other-project", ..in_zone(4, "us-central1-f") });
    finds(&node, 2).await;

    // One zone is away and has lost all of its instances, as far as the list goes; in another one
    // there is somebody new.
    emulator.set_api(Api::Misses("us-central1-a"));
    emulator.add(in_zone(5, "us-central1-b"));
    says(&node, "zone us-central1-a: UNREACHABLE").await;
    until("the new one is found, and nobody is lost", || async {
        source(&node).await["found"] == 3
    })
    .await;
    // A list that is whole says who is gone.
    emulator.remove("cache-2");
    emulator.set_api(Api::Well);
    finds(&node, 2).await;
}
