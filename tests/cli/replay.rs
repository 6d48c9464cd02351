//! `squall replay`.

use serde_json::Value;

use crate::{Scratch, assert_has_tables_and_verdict, assert_narrow, failing_entry, plan, printed, refused, squall};

#[test]
fn an_entry_of_the_corpus_is_replayed_by_its_file() {
    let files = ["seeds/row_found_at_the_start.json", "seeds/position_over_a_row.json"];
    let output = squall(&["replay", "--json", files[0], files[1]]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    let replayed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replayed.len(), 2);
    for (replayed, file) in replayed.iter().zip(files) {
        assert_eq!(file, format!("seeds/{}.json", replayed["name"].as_str().unwrap()));
        assert_eq!((&replayed["verdict"], &replayed["catches"]), (&"passed".into(), &"no_missed_rows".into()));
        assert_eq!(replayed["reproduction"], format!("cargo run --release -- replay {file}"));
    }
}

#[test]
fn a_failing_replay_prints_the_story_and_the_command_that_repeats_it() {
    let entry = failing_entry();
    let entry = Scratch::new("entry.json", &entry.to_string());
    let output = squall(&["replay", entry.path()]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("stuck") && printed.contains("pending:"), "{printed}");
    let command = format!("cargo run --release -- replay {}", entry.path());
    let last: Vec<&str> = printed.lines().rev().take(2).collect();
    assert_eq!(last, [&*command, "verdict: 1 replayed, 1 failed"], "{printed}");
    assert_narrow(&printed);
    let story = entry_story(&entry);
    let words: Vec<&str> = printed.split_whitespace().collect();
    let story: Vec<&str> = story.split_whitespace().collect();
    assert!(words.windows(story.len()).any(|words| words == story), "{printed}");
}

/// Returns the story of an entry.
fn entry_story(entry: &Scratch) -> String {
    let entry: Value = serde_json::from_str(&std::fs::read_to_string(&entry.0).unwrap()).unwrap();
    entry["story"].as_str().unwrap().to_owned()
}

#[test]
fn a_replay_ends_in_tables_of_80_columns_with_the_verdict_last() {
    let files = ["seeds/row_found_at_the_start.json", "seeds/position_over_a_row.json"];
    let printed = printed(&["replay", files[0], files[1]]);
    assert_narrow(&printed);
    assert!(printed.contains("position_over_a_row     no_missed_rows  passed\n"), "{printed}");
    assert_has_tables_and_verdict(&printed, "verdict: 2 replayed, 0 failed");
    assert_eq!(printed.lines().last(), Some("verdict: 2 replayed, 0 failed"), "{printed}");
}

#[test]
fn a_file_that_is_no_entry_of_the_corpus_is_refused_by_name() {
    refused(&["replay"], "FILE");
    refused(&["replay", "no-such-file.json"], "no-such-file.json");
    let plan = Scratch::new("no-entry.json", &plan());
    refused(&["replay", "seeds/row_found_at_the_start.json", plan.path()], plan.path());
}
