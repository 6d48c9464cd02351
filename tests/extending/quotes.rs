//! The documents quote the examples word for word.
//!
//! A document names an example by a comment, `<!-- quoted: PATH ANCHOR -->`, and has the code in the block that follows.
//! The example marks the same code by `// ANCHOR: ANCHOR` and `// ANCHOR_END: ANCHOR`. The anchor `above_tests` is the whole
//! file but for its unit tests.

use std::path::Path;

/// Documents with quotations, and the number of quotations in each.
const DOCUMENTS: [(&str, usize); 2] = [("docs/network.md", 2), ("docs/extending.md", 5)];

/// The name for all of an example but its unit tests.
const ABOVE_TESTS: &str = "above_tests";

/// A quotation in a document.
struct Quote<'a> {
    file: &'a str,
    anchor: &'a str,
    code: &'a str,
}

/// Reads a file of the project.
pub(crate) fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Returns each block of code in `document` that follows a comment `<!-- KIND: NAME -->`, with the name.
pub(crate) fn blocks<'a>(document: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let mut blocks = Vec::new();
    for part in document.split(&format!("<!-- {kind}: ")).skip(1) {
        let (name, rest) = part.split_once(" -->").expect("the comment ends");
        let code = rest.split("```").nth(1).expect("a code block follows the comment");
        let code = code.split_once('\n').expect("the block's language is on a line of its own").1;
        blocks.push((name, code));
    }
    blocks
}

/// Returns the quotations in `document`.
fn quotes(document: &str) -> Vec<Quote<'_>> {
    let mut quotes = Vec::new();
    for (name, code) in blocks(document, "quoted") {
        let (file, anchor) = name.split_once(' ').expect("the comment names a file and an anchor");
        quotes.push(Quote { file, anchor, code });
    }
    quotes
}

/// Returns the code between the marks of `anchor`.
fn anchored<'a>(example: &'a str, anchor: &str) -> &'a str {
    if anchor == ABOVE_TESTS {
        return example.split("\n#[cfg(test)]\nmod tests {").next().expect("a split has a first part");
    }
    let (_, rest) = example
        .split_once(&format!("// ANCHOR: {anchor}\n"))
        .unwrap_or_else(|| panic!("the example has no anchor {anchor}"));
    rest.split_once(&format!("// ANCHOR_END: {anchor}\n")).expect("the anchor ends").0
}

#[test]
fn the_documents_quote_the_examples_word_for_word() {
    for (path, count) in DOCUMENTS {
        let document = read(path);
        let quotes = quotes(&document);
        assert_eq!(quotes.len(), count, "quotations in {path}");
        for Quote { file, anchor, code } in quotes {
            let example = read(file);
            assert_eq!(code.trim_end(), anchored(&example, anchor).trim_end(), "{path} quotes {file} {anchor} wrongly");
        }
    }
}
