//! No import cycle between the modules of one floor.
//!
//! The modules that stand beside each other in one folder import each other in one direction only, so that a reader can
//! start at the bottom. A child may use what its parent's `mod.rs` defines, and a parent uses its children: only siblings
//! count. Names are followed through `pub use` to the module that defines them. Test modules are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, read};

/// A module of one crate: the names from the crate's root down.
type Module = Vec<String>;

/// The modules of one crate, and the names that they re-export.
#[derive(Default)]
struct Crate {
    /// Each module with its path in the repository and its text without comments, strings and tests.
    modules: BTreeMap<Module, (String, String)>,
    /// The module and the name under which something is re-exported, and its own path.
    exports: BTreeMap<(Module, String), Module>,
    /// The re-exports of all names of a module, a line each. No name can be followed through them.
    globs: Vec<String>,
}

/// The place of a file in its crate: `a/b.rs` and `a/b/mod.rs` are both module `a::b`.
fn module_of(path_in_src: &str) -> Module {
    let path = path_in_src.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "mod" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

impl Crate {
    /// The crate whose folder of sources is `folder`.
    fn new(folder: &str, sources: &[Source]) -> Self {
        let mut stripped = BTreeMap::new();
        let mut test_modules = BTreeSet::new();
        for source in sources {
            let Some(path) = source.path.strip_prefix(folder) else { continue };
            let module = module_of(path.trim_start_matches('/'));
            let (code, tests) = without_tests(&without_comments(&source.text));
            test_modules.extend(tests.into_iter().map(|test| [&module[..], &[test]].concat()));
            stripped.insert(module, (source.path.clone(), code));
        }
        let is_test = |module: &Module| (0..=module.len()).any(|upto| test_modules.contains(&module[..upto]));
        stripped.retain(|module, _| !is_test(module));
        let mut this = Crate { modules: stripped, ..Crate::default() };
        this.find_exports();
        this
    }

    fn find_exports(&mut self) {
        for (module, (file, code)) in &self.modules {
            for (statement, line) in statements(code, "use") {
                let is_export = statement.starts_with("pub");
                let Some(tree) = statement.split_once("use ").map(|(_, tree)| tree).filter(|_| is_export) else {
                    continue;
                };
                for (path, name) in leaves(tree) {
                    let path = absolute(module, &path);
                    if name == "*" {
                        self.globs.push(format!("{file}:{line}: {statement}"));
                    } else {
                        self.exports.insert((module.clone(), name), path);
                    }
                }
            }
        }
    }

    /// The module that defines what `path` names; none if it is not of this crate.
    fn defining(&self, path: &[String], hops: usize) -> Option<Module> {
        let mut module = Module::new();
        for (depth, name) in path.iter().enumerate() {
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            if hops > 0
                && let Some(target) = self.exports.get(&(module.clone(), name.clone()))
            {
                let whole = [&target[..], &path[depth + 1..]].concat();
                return self.defining(&whole, hops - 1);
            }
            break;
        }
        (!module.is_empty() || path.is_empty()).then_some(module)
    }

    /// Every import from one module to a sibling of it or of one of its ancestors: the two siblings, and where.
    fn edges(&self) -> BTreeMap<(Module, Module), String> {
        let mut edges = BTreeMap::new();
        for (from, (path, code)) in &self.modules {
            for (reference, line) in references(code) {
                let Some(to) = self.defining(&absolute(from, &reference), 8) else { continue };
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if from.len() > common && to.len() > common {
                    let siblings = (from[..=common].to_vec(), to[..=common].to_vec());
                    edges.entry(siblings).or_insert_with(|| format!("{path}:{line}"));
                }
            }
        }
        edges
    }

    /// The imports that are part of a cycle, a line each.
    fn cycles(&self) -> Vec<String> {
        let edges = self.edges();
        let mut reachable: BTreeSet<(Module, Module)> = edges.keys().cloned().collect();
        loop {
            let mut more = BTreeSet::new();
            for (from, through) in &reachable {
                let onwards = reachable.range((through.clone(), Module::new())..);
                for (_, to) in onwards.take_while(|(start, _)| start == through) {
                    more.insert((from.clone(), to.clone()));
                }
            }
            let before = reachable.len();
            reachable.extend(more);
            if reachable.len() == before {
                break;
            }
        }
        let in_cycle = edges.iter().filter(|((from, to), _)| reachable.contains(&(to.clone(), from.clone())));
        in_cycle.map(|((from, to), at)| format!("{at}: {} -> {}", from.join("::"), to.join("::"))).collect()
    }
}

/// The path `path` as seen from `module`, from the crate's root.
fn absolute(module: &Module, path: &[String]) -> Module {
    let mut base = module.clone();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        _ => {}
    }
    while rest.first().is_some_and(|name| name == "super") {
        base.pop();
        rest = &rest[1..];
    }
    [&base[..], rest].concat()
}

/// The code without comments and the contents of strings; lines stay where they are.
fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        // The `r` of a raw string ends no name.
        let is_in_name = code.strip_suffix('b').unwrap_or(&code).ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let raw_string = raw_string_length(rest).filter(|_| !is_in_name);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string {
            length
        } else if c == '"' {
            string_length(rest)
        } else if c == '\'' {
            character_length(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        rest = &rest[length..];
    }
    code
}

/// The length of the raw string at the beginning of `text`; none if there is none.
fn raw_string_length(text: &str) -> Option<usize> {
    let behind_r = text.strip_prefix('r')?;
    let behind_hashes = behind_r.trim_start_matches('#');
    let content = behind_hashes.strip_prefix('"')?;
    let end = format!("\"{}", &behind_r[..behind_r.len() - behind_hashes.len()]);
    let content_length = content.find(&end)?;
    Some(text.len() - content.len() + content_length + end.len())
}

/// The length of the string at the beginning of `text`, with its quotes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// The length of the character at the beginning of `text`, with its quotes; 1 for the mark of a lifetime.
fn character_length(text: &str) -> usize {
    let mut content = text.chars().skip(1);
    let length = match content.next() {
        Some('\\') => text.get(3..).and_then(|rest| rest.find('\'')).map(|end| 3 + end + 1),
        Some(c) if content.next() == Some('\'') => Some(c.len_utf8() + 2),
        _ => None,
    };
    length.unwrap_or(1)
}

/// The code without what `#[cfg(test)]` stands before, and the names of the modules among that.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut kept = String::new();
    let mut modules = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item.find([';', '{']).unwrap_or(item.len() - 1);
        let head = &item["#[cfg(test)]".len()..end];
        if let Some((_, name)) = head.split_once("mod ") {
            modules.push(name.trim().to_owned());
        }
        let mut depth = 0;
        let mut length = end + 1;
        if item[end..].starts_with('{') && !head.contains("use ") {
            for (offset, c) in item[end..].char_indices() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                if depth == 0 {
                    length = end + offset + 1;
                    break;
                }
            }
        } else if head.contains("use ") {
            length = item.find(';').map_or(item.len(), |end| end + 1);
        }
        kept.extend(item[..length].chars().filter(|c| *c == '\n'));
        rest = &item[length..];
    }
    kept.push_str(rest);
    (kept, modules)
}

/// The statements of `keyword` in `code`, up to their semicolons, each with its line.
fn statements(code: &str, keyword: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut began = 0;
    for (line, text) in (1..).zip(code.lines()) {
        let trimmed = text.trim();
        let visibility =
            if trimmed.starts_with("pub") { trimmed.split_once(' ').map_or("", |(_, rest)| rest) } else { trimmed };
        if statement.is_empty() && visibility.starts_with(&format!("{keyword} ")) {
            began = line;
        }
        if began > 0 {
            statement.push_str(trimmed);
            statement.push(' ');
            if trimmed.ends_with(';') {
                found.push((statement.trim_end_matches("; ").to_owned(), began));
                statement.clear();
                began = 0;
            }
        }
    }
    found
}

/// The paths that a tree of `use` names, each with the name it is known by; `*` for all that is in a module.
fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Vec<String> = path.split("::").map(|name| name.trim().to_owned()).collect();
        let last = path.last().cloned().unwrap_or_default();
        let name = if alias.is_empty() { last.clone() } else { alias.trim().to_owned() };
        if last == "self" || last == "*" {
            path.pop();
        }
        let name = if last == "self" && alias.is_empty() { path.last().cloned().unwrap_or_default() } else { name };
        return vec![(path, name)];
    };
    let prefix: Vec<String> =
        head.split("::").filter(|name| !name.trim().is_empty()).map(|name| name.trim().to_owned()).collect();
    let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let mut found = Vec::new();
    let mut depth = 0;
    let mut begin = 0;
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[begin..at].trim();
                if !part.is_empty() {
                    let joined = leaves(part).into_iter().map(|(path, name)| match name.as_str() {
                        "" => (prefix.clone(), prefix.last().cloned().unwrap_or_default()),
                        _ => ([&prefix[..], &path[..]].concat(), name),
                    });
                    found.extend(joined);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Every path in `code` that begins at the crate's root or at a parent, each with its line.
fn references(code: &str) -> Vec<(Vec<String>, usize)> {
    let mut found: Vec<(Vec<String>, usize)> = Vec::new();
    for (statement, line) in statements(code, "use") {
        let Some((_, tree)) = statement.split_once("use ") else { continue };
        let paths = leaves(tree).into_iter().map(|(path, _)| path);
        let relative = |path: &Vec<String>| path.first().is_some_and(|name| name == "crate" || name == "super");
        found.extend(paths.filter(relative).map(|path| (path, line)));
    }
    for (number, line) in code.lines().enumerate() {
        for start in ["crate::", "super::"] {
            for (at, _) in line.match_indices(start) {
                let is_start = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                let path =
                    line[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
                // A path that ends with `::` is the head of a `use`, unless types follow.
                let has_types = line[at + path.len()..].starts_with('<');
                if is_start && (has_types || !path.ends_with("::")) {
                    let names = path.trim_end_matches("::").split("::");
                    found.push((names.map(str::to_owned).collect(), number + 1));
                }
            }
        }
    }
    found
}

/// The folders of sources of every crate of the workspace.
fn crates(sources: &[Source]) -> BTreeSet<String> {
    let of_crates = sources.iter().filter_map(|source| {
        let rest = source.path.strip_prefix("crates/")?;
        let (name, _) = rest.split_once("/src/")?;
        Some(format!("crates/{name}/src"))
    });
    of_crates.chain(["src".to_owned()]).collect()
}

#[test]
fn siblings_import_each_other_in_one_direction() {
    let sources = read(&["src", "crates"], ".rs");
    let crates: Vec<Crate> = crates(&sources).iter().map(|folder| Crate::new(folder, &sources)).collect();
    let cycles: Vec<String> = crates.iter().flat_map(Crate::cycles).collect();
    assert!(cycles.is_empty(), "{} imports are part of a cycle:\n{}", cycles.len(), cycles.join("\n"));
    let globs: Vec<&String> = crates.iter().flat_map(|each| &each.globs).collect();
    assert!(globs.is_empty(), "re-export names one by one, so that imports can be followed: {globs:#?}");
}

fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    Crate::new("src", &sources).cycles()
}

#[test]
fn a_planted_cycle_is_found_however_it_is_written() {
    let lib = ("src/lib.rs", "mod a;\nmod b;\n");
    let a = ("src/a.rs", "use crate::b::B;\npub struct A;\n");
    for b in [
        "use super::a::A;\npub struct B;\n",
        "use crate::{\n    a::{self, A},\n};\npub struct B;\n",
        "pub struct B;\nfn f() -> crate::a::A {}\n",
        "pub struct B;\nfn f() { crate::a::parse::<u8>() }\n",
        "const S: &str = r#\"one \" quote\"#;\nuse crate::a::A;\npub struct B;\n",
        "const S: &[u8] = br\"a \\\";\nuse crate::a::A;\npub struct B;\n",
        "const S: &str = \"an \\\" escape\";\nuse crate::a::A;\npub struct B;\n",
        "const C: [char; 3] = ['\"', '\\'', '\\u{22}'];\nuse crate::a::A;\npub struct B;\n",
        "fn f<'a>(x: &'a str) {}\n/* a \" quote */\nuse crate::a::A;\npub struct B;\n",
    ] {
        let cycles = cycles_of(&[lib, a, ("src/b.rs", b)]);
        assert_eq!(cycles.len(), 2, "{b}: {cycles:?}");
        assert!(cycles[0].starts_with("src/a.rs:1: a -> b"), "{cycles:?}");
    }
    // Through a re-export of the parent, and from deep inside.
    let lib = ("src/lib.rs", "mod a;\nmod b;\npub use a::A;\n");
    let cycles = cycles_of(&[lib, a, ("src/b/mod.rs", "mod c;\n"), ("src/b/c.rs", "use crate::A;\n")]);
    assert_eq!(cycles, ["src/a.rs:1: a -> b", "src/b/c.rs:1: b -> a"]);
}

#[test]
fn a_re_export_of_all_names_is_found() {
    let lib = Source::new("src/lib.rs", "mod a;\n\npub use a::*;\n");
    let a = Source::new("src/a.rs", "pub use std::io::Read;\n");
    assert_eq!(Crate::new("src", &[lib, a]).globs, ["src/lib.rs:3: pub use a::*"]);
}

#[test]
fn what_is_no_cycle_between_siblings_is_not_found() {
    let lib = ("src/lib.rs", "mod a;\nmod b;\npub struct Root;\n");
    let a = ("src/a.rs", "use crate::b::B;\nuse crate::Root;\npub struct A;\n");
    let b = "// use crate::a::A;\n/* use crate::a::A; */\nconst S: &str = r\"crate::a::A\";\npub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
    assert_eq!(cycles_of(&[lib, a, ("src/b.rs", b)]), [""; 0]);
    let parent = ("src/b/mod.rs", "mod c;\npub use c::C;\npub struct B;\n#[cfg(test)]\nmod tests;\n");
    let files =
        [lib, a, parent, ("src/b/c.rs", "use super::B;\npub struct C;\n"), ("src/b/tests.rs", "use crate::a::A;\n")];
    assert_eq!(cycles_of(&files), [""; 0]);
}
