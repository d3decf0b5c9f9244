//! New epochs when Redis may have gone back in time.

use super::*;

impl Rig {
    async fn position(&self, commands: &Commands, name: &str) -> (Epoch, u64) {
        let state = commands.read(&topic(name), LOOK).await.unwrap().unwrap();
        (state.position.epoch, state.position.offset)
    }

    fn known_id(&self, commands: &Commands) -> String {
        commands.link().unwrap().replication_id.to_string()
    }

    async fn change_id(&self) {
        let _: () = self.ask(&["DEBUG", "CHANGE-REPL-ID"]).await;
    }
}

#[tokio::test]
async fn a_new_replication_id_is_a_new_epoch_once() {
    let rig = Rig::new().await;
    let stale = node("m7q2");
    rig.link(&stale).await;
    rig.offsets(vec![item("a", "1"), item("a", "2")]).await;
    let before = rig.position(&rig.commands, "a").await;
    rig.change_id().await;
    assert_eq!(rig.position(&stale, "a").await, before, "until it is looked up");

    rig.link(&rig.commands).await;
    let published = rig.publish(item("a", "3")).await;
    assert_eq!(published.position.offset, 3, "the offset goes on");
    let after = rig.position(&rig.commands, "a").await;
    assert_eq!(after, (published.position.epoch, 3));
    assert_ne!(after.0, before.0);
    assert_eq!(rig.history("a").await, [1, 2, 3], "the history stays");

    // The node that is behind finds out, flips nothing back, and knows the id from then on.
    let old = rig.known_id(&stale);
    assert_ne!(old, rig.known_id(&rig.commands));
    let answers = stale.publish(vec![item("a", "4")]).await;
    assert_eq!(answers[0].unwrap().position, Position { epoch: after.0, offset: 4 });
    assert_eq!(rig.known_id(&stale), rig.known_id(&rig.commands));
    assert_eq!(rig.position(&rig.commands, "a").await, (after.0, 4));
    assert!(rig.ttl(&rig.key("a")).await > 0);
    let fields: u64 = rig.ask(&["HLEN", &rig.key("a")]).await;
    assert_eq!(fields, 2, "the old state is gone");
}

#[tokio::test]
async fn reads_and_comparisons_fence_quiet_topics() {
    let rig = Rig::new().await;
    rig.offsets(vec![item("a", "1"), item("b", "1"), plain("c", "1")]).await;
    let mut before = Vec::new();
    for name in ["a", "b", "c"] {
        before.push(rig.position(&rig.commands, name).await.0);
    }
    rig.change_id().await;
    rig.link(&rig.commands).await;
    rig.commands.compare(1, &[topic("b")]).await.unwrap();
    for (name, before) in ["a", "b", "c"].iter().zip(before) {
        let state = rig.read(name, LOOK).await.unwrap();
        assert_ne!(state.position.epoch, before);
        assert_eq!(state.position.offset, 1);
        assert_eq!(state.value.unwrap().position(), state.position, "the value stays");
        let again = rig.read(name, ALL).await.unwrap();
        assert_eq!(again.position, state.position);
        assert!(rig.ttl(&rig.key(name)).await > 0);
    }
}

#[tokio::test]
async fn a_probe_corrects_the_id_though_nothing_else_does() {
    let rig = Rig::new().await;
    let old = rig.known_id(&rig.commands);
    rig.change_id().await;
    rig.publish(plain("a", "1")).await;
    rig.commands.probe(1).await.unwrap();
    assert_ne!(rig.known_id(&rig.commands), old);
}

#[tokio::test]
async fn a_correction_is_for_the_connection_that_it_came_on() {
    let rig = Rig::new().await;
    let link = rig.commands.link().unwrap();
    rig.link(&rig.commands).await;
    let known = rig.known_id(&rig.commands);
    rig.commands.correct(&link, "an id of a Redis of before");
    assert_eq!(rig.known_id(&rig.commands), known);
    rig.commands.correct(&rig.commands.link().unwrap(), "the true one");
    assert_eq!(rig.known_id(&rig.commands), "the true one");
}

#[tokio::test]
async fn a_restart_with_an_old_file_is_a_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--dir", directory.path().to_str().unwrap()];
    let mut rig = Rig::with(&arguments).await;
    rig.offsets(vec![keyed("a", "1", "k"), item("a", "2")]).await;
    let _: () = rig.ask(&["SAVE"]).await;
    rig.offsets(vec![item("a", "3"), item("a", "4")]).await;
    let before = rig.position(&rig.commands, "a").await;
    rig.server.kill();

    let rig = Rig { commands: rig.commands.clone(), ..Rig::with(&arguments).await };
    rig.link(&rig.commands).await;
    let rewound = rig.position(&rig.commands, "a").await;
    assert_eq!(rewound.1, 2);
    assert_ne!(rewound.0, before.0);
    let published = rig.publish(item("a", "5")).await;
    assert_eq!(published.position, Position { epoch: rewound.0, offset: 3 });
    assert_eq!(rig.history("a").await, [2, 3]);
    let known = rig.publish(keyed("a", "1", "k")).await;
    assert!(known.duplicate);
    assert_eq!(known.position, Position { epoch: before.0, offset: 1 });
}
