//! The engine beside others on the same traffic: a star of hosts.
//!
//! In one table, simulated seconds per second on one core: turmoil in steps of 1 and of 10 ms, bare pipes in one paused
//! runtime, and Squall's engine. With `-- --madsim PROGRAM` also madsim, whose program is in `benches/madsim` because it needs
//! flags of its own. `-- one ENGINE HOSTS EVERY_MS SECS [no-fan-out]` runs one cell once, for a profiler.

mod networks;
mod workload;

use std::process::Command;
use std::time::{Duration, Instant};

use networks::Network;
use workload::Star;

/// The allocator of the program `squall`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The rows: hosts, and milliseconds between two lines of a spoke.
const CELLS: [(usize, u64); 16] = [
    (9, 10),
    (9, 100),
    (9, 1_000),
    (9, 5_000),
    (17, 10),
    (17, 100),
    (17, 1_000),
    (17, 5_000),
    (33, 10),
    (33, 100),
    (33, 1_000),
    (33, 5_000),
    (129, 10),
    (129, 100),
    (129, 1_000),
    (129, 5_000),
];
/// Hosts of the stars without fan-out.
const WITHOUT_FAN_OUT: [usize; 5] = [9, 33, 129, 257, 500];
/// Lines that one measurement should bring: enough to last some 100 ms.
const LINES: u64 = 60_000;
/// Measurements of a cell; the best counts, as other programs can only slow it down.
const SAMPLES: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["one", network, hosts, every, secs, ref rest @ ..] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let every = Duration::from_millis(number(every));
            let star =
                Star { spokes: number(hosts) as usize - 1, every, secs: number(secs), fans_out: rest.is_empty() };
            let network = Network::ALL.into_iter().find(|one| one.name() == network).expect("a network");
            println!("{:.3} s for {} lines", network.run(star).as_secs_f64(), star.lines());
        }
        ["--madsim", program] => tables(Some(program)),
        [] => tables(None),
        _ => panic!("unknown arguments: {arguments:?}"),
    }
}

fn tables(madsim: Option<&str>) {
    println!("Simulated seconds a second:\n");
    println!("| hosts | every | turmoil 1 ms | 10 ms | madsim | bare pipes | Squall | of madsim | of bare |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (hosts, every) in CELLS {
        let star = |lines| {
            sized(Star { spokes: hosts - 1, every: Duration::from_millis(every), secs: 1, fans_out: true }, lines)
        };
        let rate = |secs: u64, took: Duration| secs as f64 / took.as_secs_f64();
        let (mut bare, mut squall, mut mad) = (0.0_f64, 0.0_f64, None);
        for _ in 0..SAMPLES {
            let star = star(LINES);
            bare = bare.max(rate(star.secs, Network::Bare.run(star)));
            squall = squall.max(rate(star.secs, Network::Squall.run(star)));
            if let Some(program) = madsim {
                mad = Some(mad.unwrap_or(0.0_f64).max(rate(star.secs, run_madsim(program, star))));
            }
        }
        // Turmoil's cost is that of its steps, so a tenth of the lines tells it.
        let turmoil = [Network::Turmoil1, Network::Turmoil10].map(|network| {
            let star = star(LINES / 10);
            rate(star.secs, network.run(star))
        });
        let figure = |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{figure:.0}"));
        let ratio = |other: Option<f64>| other.map_or("–".to_owned(), |other| format!("{:.2}", squall / other));
        println!(
            "| {hosts} | {every} ms | {:.0} | {:.0} | {} | {bare:.0} | {squall:.0} | {} | {} |",
            turmoil[0],
            turmoil[1],
            figure(mad),
            ratio(mad),
            ratio(Some(bare)),
        );
    }
    println!("\nWithout fan-out, one line a second from each spoke:\n");
    println!("| hosts | microseconds a line | of 9 hosts |");
    println!("|---|---|---|");
    let mut first = None;
    for hosts in WITHOUT_FAN_OUT {
        let star = sized(Star { spokes: hosts - 1, every: Duration::from_secs(1), secs: 1, fans_out: false }, LINES);
        let took = (0..SAMPLES).map(|_| Network::Squall.run(star)).min().expect("there are samples");
        let each = took.as_secs_f64() * 1e6 / star.lines() as f64;
        println!("| {hosts} | {each:.2} | {:.2} |", each / *first.get_or_insert(each));
    }
    let hour = Star { spokes: 499, every: Duration::from_secs(10), secs: 3_600, fans_out: false };
    let took = (0..SAMPLES).map(|_| Network::Squall.run(hour)).min().expect("there are samples");
    println!("\n500 hosts, a line every 10 s each, one simulated hour: {:.2} s", took.as_secs_f64());
    println!("most memory of this program, all tables: {} MB", networks::peak_memory() / 1_000_000);
}

/// The star for as many seconds as bring so many lines; at least twenty periods.
fn sized(star: Star, lines: u64) -> Star {
    let least = (star.every * 20).as_secs().max(1);
    let each = Star { secs: least, ..star }.lines().max(1);
    Star { secs: (lines * least / each).max(least), ..star }
}

fn run_madsim(program: &str, star: Star) -> Duration {
    let arguments = [star.spokes as u64 + 1, star.every.as_millis() as u64, star.secs].map(|number| number.to_string());
    let output = Command::new(program).args(arguments).output().expect("madsim's program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let took = String::from_utf8_lossy(&output.stdout);
    Duration::from_secs_f64(took.trim().parse().expect("it prints seconds"))
}

/// Real time. The simulated one is tokio's.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
