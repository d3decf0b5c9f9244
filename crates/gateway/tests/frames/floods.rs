//! What a few clients send without end must not be felt by the others, nor by the node's memory.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{CONTINUATION, Client, PING, PONG, TEXT, declared, frame};
use crate::program::Program;
use crate::resident::resident;
use crate::turn;

/// How soon another client is answered.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// How soon who floods is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Connections that flood at the same time.
const FLOODERS: usize = 10;

/// Between two questions of the client that is watched.
const PAUSE: Duration = Duration::from_millis(5);

/// Questions that are asked at least.
const QUESTIONS_MIN: usize = 20;

/// What a flood did to the others.
struct Damage {
    /// How long each question took, in order of length.
    answers: Vec<Duration>,
    /// Bytes by which the node has grown at most.
    grown: u64,
}

impl Damage {
    /// The others were answered in time, and the node has not grown beyond what it may.
    fn expect_little(self, what: &str, grown_max: u64) {
        let Self { answers, grown } = self;
        let (middle, last) = (answers[answers.len() / 2], answers[answers.len() - 1]);
        // One answer in twenty may wait for the machine, which has other things to do.
        let most = answers[(answers.len() - 1) * 19 / 20];
        println!(
            "{what}: {} answers, median {middle:?}, 95 % within {most:?}, all within {last:?}; {} KiB more",
            answers.len(),
            grown / 1024
        );
        assert!(most < ANSWERED_WITHIN, "{what}: others wait {most:?}");
        assert!(grown <= grown_max, "{what}: the node has grown by {grown} bytes");
    }
}

/// Asks one client's questions on the same node until `flood` is done.
fn under(program: &Program, flood: impl FnOnce() + Send) -> Damage {
    let mut other = Client::open(program.address);
    other.ask();
    let before = resident(program.pid());
    let (mut answers, mut most) = (Vec::new(), before);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Also where the flood fails, so that the questions end.
            struct Over<'a>(&'a AtomicBool);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Relaxed);
                }
            }
            let _over = Over(&is_over);
            flood();
        });
        while !is_over.load(Relaxed) || answers.len() < QUESTIONS_MIN {
            let asked = Instant::now();
            other.ask();
            answers.push(asked.elapsed());
            most = most.max(resident(program.pid()));
            thread::park_timeout(PAUSE);
        }
    });
    answers.sort();
    Damage { answers, grown: most - before }
}

/// All on one worker: what one connection does there, the others would feel.
fn node(settings: &[(&str, &str)]) -> Program {
    // The client that is watched asks as often as it can.
    let usual = [("server.workers", "1"), ("limits.commands_per_second", "0")];
    Program::serve(&[&usual, settings].concat())
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_declared_gigabyte_is_refused_on_its_header() {
    const CLIENTS: usize = 1000;
    let _turn = turn();
    let program = node(&[]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::open(program.address)).collect();
    let damage = under(&program, || {
        for client in &mut clients {
            client.send(&declared(1 << 30));
        }
        for client in &mut clients {
            assert_eq!(client.closed(), (1009, 0));
        }
    });
    damage.expect_little("a gigabyte declared by 1,000", 8 * MIB);
}

#[test]
fn a_declared_message_that_does_not_come_holds_nothing_and_ends_in_time() {
    const CLIENTS: usize = 1000;
    let _turn = turn();
    let program = node(&[("websocket.message_timeout", "1s")]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::open(program.address)).collect();
    let damage = under(&program, || {
        for client in &mut clients {
            client.send(&[&declared(90_000)[..], b"{"].concat());
        }
        for client in &mut clients {
            assert_eq!(client.closed(), (1008, 0));
        }
    });
    damage.expect_little("messages declared by 1,000 that do not come", 8 * MIB);
}

/// Writes `flood` again and again on each of several connections until the node closes it.
fn flood_until_closed(program: &Program, flood: &[u8]) -> (Damage, Vec<(u16, usize)>, Duration) {
    let clients: Vec<_> = (0..FLOODERS).map(|_| Client::open(program.address)).collect();
    let mut ends = Vec::new();
    let mut slowest = Duration::ZERO;
    let damage = under(program, || {
        thread::scope(|scope| {
            let flooders = clients.into_iter().map(|mut client| {
                let mut twin = client.twin();
                scope.spawn(move || while twin.try_send(flood) {});
                let started = Instant::now();
                scope.spawn(move || (client.closed(), started.elapsed()))
            });
            for flooder in flooders.collect::<Vec<_>>() {
                let (end, elapsed) = flooder.join().expect("it was closed with a code");
                ends.push(end);
                slowest = slowest.max(elapsed);
            }
        });
    });
    (damage, ends, slowest)
}

fn expect_flood_ends(what: &str, flood: &[u8], frames_max: usize) {
    let _turn = turn();
    let program = node(&[]);
    let (damage, ends, slowest) = flood_until_closed(&program, flood);
    for (code, frames) in ends {
        assert_eq!(code, 1008, "{what}");
        assert!(frames <= frames_max, "{what}: {frames} frames came before the end");
    }
    println!("{what}: closed within {slowest:?}");
    assert!(slowest < CLOSED_WITHIN, "{what}: closed after {slowest:?}");
    damage.expect_little(what, 8 * MIB);
}

#[test]
fn a_flood_of_empty_continuations_ends() {
    let flood = [frame(false, TEXT, b" "), frame(false, CONTINUATION, b"").repeat(100_000)];
    expect_flood_ends("empty continuations", &flood.concat(), 0);
}

#[test]
fn a_flood_of_pings_ends() {
    // At the turn of a second both count.
    expect_flood_ends("pings", &frame(true, PING, b"12345678").repeat(10_000), 200);
}

#[test]
fn a_flood_of_pongs_ends() {
    expect_flood_ends("pongs", &frame(true, PONG, b"12345678").repeat(10_000), 0);
}

/// The next frame says that the message was no command.
fn expect_error(client: &mut Client) {
    let (opcode, reply) = client.frame().expect("an error reply");
    let reply = String::from_utf8(reply).expect("text");
    assert!(opcode == TEXT && reply.contains("bad_json"), "{reply}");
}

/// As many fragments as a message may have, one byte each: that is no breach, and each message gets its error reply.
#[test]
fn messages_of_many_fragments_cost_the_others_nothing() {
    const MESSAGES: usize = 100_000;
    let _turn = turn();
    let program = node(&[]);
    let middle = frame(false, CONTINUATION, b" ").repeat(62);
    let message = [frame(false, TEXT, b" "), middle, frame(true, CONTINUATION, b" ")].concat();
    // Few, because they go on: their own threads take the processor from the client that is watched.
    let clients: Vec<_> = (0..2).map(|_| Client::open(program.address)).collect();
    let damage = under(&program, || {
        thread::scope(|scope| {
            for mut client in clients {
                let (mut twin, message) = (client.twin(), &message);
                scope.spawn(move || (0..MESSAGES).for_each(|_| twin.send(message)));
                scope.spawn(move || (0..MESSAGES).for_each(|_| expect_error(&mut client)));
            }
        });
    });
    damage.expect_little("messages of 64 fragments", 16 * MIB);
}

#[test]
fn fragments_without_an_end_hold_no_memory_and_end_in_time() {
    const CLIENTS: usize = 1000;
    let _turn = turn();
    let program = node(&[("websocket.message_timeout", "1s")]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::open(program.address)).collect();
    let damage = under(&program, || {
        for client in &mut clients {
            client.send(
                &[frame(false, TEXT, b" "), frame(false, CONTINUATION, b" ").repeat(9)].concat(),
            );
        }
        for client in &mut clients {
            assert_eq!(client.closed(), (1008, 0));
        }
    });
    damage.expect_little("fragments of 1,000 messages without an end", 8 * MIB);
}
