//! What becomes of lists, and of those that do not come.

use super::*;
use crate::config::Match;

/// An instance in the zone `us-central1-b`, with a tag and one interface.
fn instance(id: u64, address: &str, network: &str, tag: &str) -> instance::Instance {
    serde_json::from_value(serde_json::json!({
        "id": id.to_string(), "status": "RUNNING", "tags": {"items": [tag]},
        "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-b",
        "networkInterfaces": [{"name": "nic0", "networkIP": address, "network": network}],
    }))
    .expect("an instance")
}

fn source() -> (Gce, Own) {
    let matching = Match { tags: vec!["cache".to_owned()], ..Match::default() };
    let config = Config { matching, ..Config::default() };
    let metadata = Metadata::new("127.0.0.1:9", true).expect("a host");
    let (project, zone) = ("p".to_owned(), "us-central1-b".to_owned());
    let own = Own { project, zone, id: u64::MAX, tags: vec!["cache".to_owned()] };
    (Gce::new(&config, metadata), own)
}

fn whole(instances: Vec<instance::Instance>) -> Listing {
    Listing { instances, ..Listing::default() }
}

fn take(
    gce: &mut Gce,
    own: &Own,
    listed: Result<Listing, Refusal>,
) -> Result<(Vec<String>, Option<String>), String> {
    let found = gce.take(own, &Places::All, [("p".to_owned(), listed)].into());
    let found = found.map_err(|nothing| nothing.reason)?;
    let mut places: Vec<_> = found.places.iter().map(ToString::to_string).collect();
    places.sort();
    Ok((places, found.trouble))
}

fn expected(places: &[&str]) -> Vec<String> {
    places.iter().map(|&place| place.to_owned()).collect()
}

#[test]
fn neither_itself_nor_another_network_nor_another_service_is_proposed() {
    let (mut gce, own) = source();
    let listed = Ok(whole(vec![
        instance(own.id, "10.0.0.1", "n", "cache"),
        instance(u64::MAX - 1, "10.0.0.2", "n", "cache"),
        instance(3, "10.0.0.3", "other", "cache"),
        instance(4, "10.0.0.4", "n", "web"),
        instance(5, "fd20::5", "n", "cache"),
    ]));
    let (places, trouble) = take(&mut gce, &own, listed).expect("found");
    assert_eq!((places, trouble), (expected(&["10.0.0.2:9999", "[fd20::5]:9999"]), None));
    assert_eq!(gce.said, None);
}

#[test]
fn who_is_not_among_those_that_it_looks_for_says_so() {
    let (mut gce, own) = source();
    let ours = instance(own.id, "10.0.0.1", "n", "web");
    take(&mut gce, &own, Ok(whole(vec![ours]))).expect("found");
    assert_eq!(gce.said.as_deref(), Some("it has no network tag cache"));
    take(&mut gce, &own, Ok(whole(Vec::new()))).expect("found");
    assert!(gce.said.as_deref().is_some_and(|it| it.contains("not in the list")));
    take(&mut gce, &own, Ok(whole(vec![instance(own.id, "10.0.0.1", "n", "cache")])))
        .expect("found");
    assert_eq!(gce.said, None);
}

#[test]
fn what_does_not_come_as_a_whole_takes_nobody_away() {
    let (mut gce, own) = source();
    let two = || vec![instance(2, "10.0.0.2", "n", "cache"), instance(3, "10.0.0.3", "n", "cache")];
    take(&mut gce, &own, Ok(whole(two()))).expect("found");
    for kind in [Kind::Passing, Kind::Lasting, Kind::Token] {
        let refusal = Refusal { kind, reason: "no".to_owned() };
        assert_eq!(take(&mut gce, &own, Err(refusal)), Err("project p: no".to_owned()));
    }
    let all = expected(&["10.0.0.2:9999", "10.0.0.3:9999", "10.0.0.4:9999"]);
    for (incomplete, is_part) in
        [(Some("us-central1-b"), None), (None, Some("PARTIAL_SUCCESS".to_owned()))]
    {
        let incomplete = incomplete.map(|it| (it.to_owned(), "UNREACHABLE".to_owned()));
        let instances = vec![instance(4, "10.0.0.4", "n", "cache")];
        let incomplete = incomplete.into_iter().collect();
        let listed = Ok(Listing { instances, incomplete, is_part });
        let (places, trouble) = take(&mut gce, &own, listed).expect("found");
        assert_eq!(places, all);
        assert!(trouble.is_some());
    }
    // Another zone that is not all there takes nothing from this one, and keeps nothing of it.
    let incomplete = [("us-central1-a".to_owned(), "UNREACHABLE".to_owned())].into();
    let listed = Ok(Listing { instances: two(), incomplete, is_part: None });
    let (places, _) = take(&mut gce, &own, listed).expect("found");
    assert_eq!(places, expected(&["10.0.0.2:9999", "10.0.0.3:9999"]));
    let (places, trouble) = take(&mut gce, &own, Ok(whole(Vec::new()))).expect("found");
    assert_eq!((places, trouble), (Vec::new(), None), "nobody is an answer too");
}

#[test]
fn who_may_not_ask_waits_longer_than_who_was_unlucky() {
    let (mut gce, own) = source();
    let mut rest = |kind| {
        let refusal = Refusal { kind, reason: String::new() };
        let listed = [("p".to_owned(), Err(refusal))].into();
        gce.take(&own, &Places::All, listed).err().map(|nothing| nothing.rest)
    };
    assert_eq!(rest(Kind::Passing), Some(Duration::ZERO));
    assert_eq!(rest(Kind::Lasting), Some(Duration::from_mins(5)));
    assert_eq!(rest(Kind::Token), Some(TOKEN_REST));
    assert_eq!(rest(Kind::Resting(Duration::from_secs(7))), Some(Duration::from_secs(7)));
}
