//! Plain English.
//!
//! A doc comment opens with a noun phrase or a verb. A comment or document names the agent: the client, the follower, the
//! caller. The words below show that it does not. One line with such a word fails the check.

use crate::sources::{Source, read};

/// Words that no doc comment opens with.
const OPENINGS: [&str; 7] = ["what", "how", "whether", "who", "whose", "whatever", "whoever"];

/// Words that no comment and no document contains.
const NAMELESS: [&str; 5] = ["whoever", "whatever", "nobody", "somebody", "everybody"];

/// The folders with Rust code.
const CODE: [&str; 6] = ["crates", "src", "sims", "tests", "benches", "docs"];

/// The folders and files with text for readers.
const DOCUMENTS: [&str; 5] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "benches"];

/// The comment on a line of Rust, without its marker; none if there is none. The flag is true for a doc comment.
fn comment(line: &str) -> Option<(&str, bool)> {
    let trimmed = line.trim_start();
    for marker in ["///", "//!"] {
        if let Some(text) = trimmed.strip_prefix(marker) {
            return Some((text, true));
        }
    }
    if let Some(text) = trimmed.strip_prefix("//") {
        return Some((text, false));
    }
    // Behind code. A `//` within a string, as in a URL, follows no space.
    line.split_once(" // ").map(|(_, text)| (text, false))
}

/// The first word of `text`, in lower case and without the marks around it.
fn first_word(text: &str) -> String {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// The lines at which a doc comment opens with one of [`OPENINGS`].
fn bad_openings(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut continues = false;
    for (number, line) in source.text.lines().enumerate() {
        let doc = comment(line).filter(|(_, is_doc)| *is_doc);
        if let Some((text, _)) = doc
            && !continues
            && OPENINGS.contains(&first_word(text).as_str())
        {
            found.push(format!("{}:{}: opens with a question word: {}", source.path, number + 1, line.trim()));
        }
        continues = doc.is_some();
    }
    found
}

/// The lines of `text`, which is prose, that contain one of [`NAMELESS`].
fn nameless<'a>(path: &str, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in lines {
        // An underscore joins the words of a name, which is no prose.
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let has_one = words.map(str::to_lowercase).any(|word| NAMELESS.contains(&word.as_str()));
        if has_one {
            found.push(format!("{path}:{number}: names no one: {}", line.trim()));
        }
    }
    found
}

fn nameless_in_code(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let comments = lines.filter_map(|(number, line)| comment(line).map(|(text, _)| (number + 1, text)));
    nameless(&source.path, comments)
}

fn nameless_in_document(source: &Source) -> Vec<String> {
    nameless(&source.path, source.text.lines().enumerate().map(|(number, line)| (number + 1, line)))
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "{} lines to rewrite:\n{}", found.len(), found.join("\n"));
}

/// Returns true for this file, which has to name the words.
fn is_this(source: &Source) -> bool {
    source.path.ends_with("house/prose.rs")
}

#[test]
fn no_doc_comment_opens_with_a_question_word() {
    assert_none(read(&CODE, ".rs").iter().filter(|source| !is_this(source)).flat_map(bad_openings).collect());
}

#[test]
fn comments_and_documents_name_the_agent() {
    let code = read(&CODE, ".rs");
    let mut found: Vec<String> = code.iter().filter(|source| !is_this(source)).flat_map(nameless_in_code).collect();
    found.extend(read(&DOCUMENTS, ".md").iter().flat_map(nameless_in_document));
    assert_none(found);
}

#[test]
fn the_readme_is_at_most_120_lines() {
    let readme = &read(&["README.md"], ".md")[0];
    let lines = readme.text.lines().count();
    assert!(lines <= 120, "README.md has {lines} lines: move text to docs/");
}

#[test]
fn a_planted_opening_of_each_kind_is_found_with_its_line() {
    for word in OPENINGS {
        let capital = word[..1].to_uppercase() + &word[1..];
        for opening in [word.to_owned(), capital.clone(), format!("*{capital}*")] {
            let text = format!("/// A position.\n///\n/// {opening} it is, is told later.\nfn f() {{}}\n");
            assert_eq!(bad_openings(&Source::new("a.rs", &text)), [""; 0], "only the first line of a comment counts");
            let text = format!("fn f() {{}}\n\n    /// {opening} it is.\n    x: u8,\n");
            assert_eq!(bad_openings(&Source::new("a.rs", &text)).len(), 1);
            assert!(bad_openings(&Source::new("a.rs", &text))[0].starts_with("a.rs:3: "));
        }
    }
    assert_eq!(bad_openings(&Source::new("a.rs", "/// Whole tokens.\n// What is no doc comment.\n")), [""; 0]);
}

#[test]
fn a_planted_nameless_word_of_each_kind_is_found_with_its_line() {
    for word in NAMELESS {
        let code = format!("let {word} = 1;\nlet x = 2; // it tells {word}.\n");
        assert_eq!(nameless_in_code(&Source::new("a.rs", &code)).len(), 1, "identifiers are not prose");
        assert!(nameless_in_code(&Source::new("a.rs", &code))[0].starts_with("a.rs:2: "));
        let document = format!("# A title\n\nIt tells {word}.\n");
        assert!(nameless_in_document(&Source::new("a.md", &document))[0].starts_with("a.md:3: "));
    }
}
