//! The rule of rooms, pure: a table of rooms and the sources of a crate in, violations out.

use anyhow::{Context, Result};

use crate::rooms::imports::{self, File, Import};

/// A crate and the order of its rooms.
pub(super) struct House {
    /// The folder of its sources, from the root of the workspace.
    pub(super) src: &'static str,
    /// The rooms from top to bottom: a file may import its own room and those below.
    pub(super) rooms: &'static [&'static str],
    /// Orders of the modules within a room; a room without one has none.
    pub(super) inner: &'static [Inner],
    /// Macros with `#[macro_export]`, which stand at the crate's root, and the rooms that define them.
    pub(super) macros: &'static [(&'static str, &'static str)],
}

/// The order of the modules of a room.
pub(super) struct Inner {
    /// The room.
    pub(super) room: &'static str,
    /// Its modules from top to bottom: one may import the levels below its own, and no other module of its own level.
    pub(super) levels: &'static [&'static [&'static str]],
}

impl Inner {
    fn level(&self, module: &str) -> Option<usize> {
        self.levels.iter().position(|level| level.contains(&module))
    }

    /// Whether a module may import another one. Names that are no module of the order are items of the room's own file.
    fn allows(&self, module: &str, target: &str) -> bool {
        match (self.level(module), self.level(target)) {
            (Some(from), Some(to)) => module == target || to > from,
            _ => true,
        }
    }
}

/// A source file.
pub(super) struct Source {
    /// Below `src`, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// Everything in the sources that breaks the order, one line each. Code of tests does not count.
pub(super) fn violations(house: &House, sources: &[Source]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for Source { path, text } in sources {
        let file = imports::read(path, text).with_context(|| format!("parse {}/{path}", house.src))?;
        files.push((path.as_str(), file));
    }
    let test_modules: Vec<_> = files.iter().flat_map(|(_, file)| file.test_modules.clone()).collect();
    files.retain(|(path, _)| !test_modules.iter().any(|test| imports::module_of(path).starts_with(test)));

    let mut found = Vec::new();
    for (path, file) in &files {
        match room_of(house, path) {
            Place::Outside(problem) => found.push(format!("{}/{path}:1: {problem}", house.src)),
            Place::Main => {}
            Place::Library => found.extend(items_of_library(house, path, file)),
            Place::Room(room) => {
                let hides = |(line, detour): &(usize, &str)| {
                    format!("{}/{path}:{line}: `{detour}` hides imports from this test: name the module", house.src)
                };
                found.extend(file.detours.iter().map(hides));
                found.extend(without_level(house, room, path));
                for import in &file.imports {
                    let at = format!("{}/{path}:{}", house.src, import.line);
                    match target_of(house, import) {
                        None => found.push(format!("{at}: `{}` lies in no room", import.written)),
                        Some(target) => {
                            if level(house, target) < level(house, room) {
                                found.push(format!(
                                    "{at}: `{}` goes up from room {room} to room {target}",
                                    import.written
                                ));
                            } else if target == room && !inner_allows(house, room, path, &import.target) {
                                found.push(format!("{at}: `{}` goes up or aside within room {room}", import.written));
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Where a file lies.
enum Place<'a> {
    Room(&'a str),
    /// `main.rs` may import everything; nothing can import it.
    Main,
    /// `lib.rs` declares the rooms.
    Library,
    /// The reason why it lies in no room.
    Outside(String),
}

fn room_of<'a>(house: &House, path: &'a str) -> Place<'a> {
    match path.split_once('/') {
        Some((room, _)) if house.rooms.contains(&room) => Place::Room(room),
        Some((room, _)) => Place::Outside(format!("room {room} has no place in the order {}", listed(house))),
        None if path == "main.rs" => Place::Main,
        None if path == "lib.rs" => Place::Library,
        None => Place::Outside(format!("lies outside a room: move it into the folder of one of {}", listed(house))),
    }
}

/// The room that an import leads to; none for the root of the crate and for names that are no room.
fn target_of<'a>(house: &'a House, import: &Import) -> Option<&'a str> {
    let first = import.target.first()?;
    let macros = house.macros.iter().filter(|(name, _)| name == first).map(|(_, room)| room);
    macros.chain(house.rooms.iter().filter(|room| *room == first)).copied().next()
}

fn level(house: &House, room: &str) -> usize {
    house.rooms.iter().position(|other| *other == room).unwrap_or(house.rooms.len())
}

/// The module of a file within its room; none for the room's own `mod.rs`.
fn inner_module(path: &str) -> Option<&str> {
    let (_, inside) = path.split_once('/')?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "mod").then_some(module)
}

fn inner_allows(house: &House, room: &str, path: &str, target: &[String]) -> bool {
    let inner = house.inner.iter().find(|inner| inner.room == room);
    match (inner, inner_module(path), target.get(1)) {
        (Some(inner), Some(module), Some(target)) => inner.allows(module, target),
        _ => true,
    }
}

/// Reports a file whose room has an order in which its module has no level.
fn without_level(house: &House, room: &str, path: &str) -> Option<String> {
    let inner = house.inner.iter().find(|inner| inner.room == room)?;
    let module = inner_module(path)?;
    let message = || format!("{}/{path}:1: module {module} has no level in the order of room {room}", house.src);
    inner.level(module).is_none().then(message)
}

fn items_of_library(house: &House, path: &str, file: &File) -> Vec<String> {
    let message =
        |line: &usize| format!("{}/{path}:{line}: lib.rs declares the rooms and holds nothing else", house.src);
    file.other_items.iter().map(message).collect()
}

/// The rooms in order, for messages.
pub(super) fn listed(house: &House) -> String {
    house.rooms.join(" > ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUSE: House =
        House { src: "src", rooms: &["top", "middle", "bottom"], inner: &[], macros: &[("say", "bottom")] };

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> =
            files.iter().map(|&(path, text)| Source { path: path.into(), text: text.into() }).collect();
        violations(&HOUSE, &sources).unwrap()
    }

    #[test]
    fn imports_of_lower_rooms_and_of_the_own_room_are_in_order() {
        let down = "use crate::{middle::x, bottom};\nfn f() { crate::say!(); super::g(); }\n";
        assert_eq!(found(&[("top/mod.rs", "fn g() {}"), ("top/a.rs", down), ("main.rs", "use crate::top;")]), [""; 0]);
    }

    #[test]
    fn an_import_against_the_order_is_reported_with_file_line_and_rule() {
        let planted = "use std::fs;\n\nuse crate::top::run;\n";
        assert_eq!(
            found(&[("middle/a.rs", planted)]),
            ["src/middle/a.rs:3: `crate::top::run` goes up from room middle to room top"]
        );
    }

    #[test]
    fn an_import_by_super_an_inline_path_or_a_macro_is_reported_too() {
        for planted in [
            "use super::super::top::run;",
            "fn f() { crate::top::run() }",
            "fn f() { println!(\"{}\", super::super::top::run()) }",
            "mod inner { fn f() { super::super::super::top::run() } }",
        ] {
            let found = found(&[("middle/a.rs", planted)]);
            assert!(found.len() == 1 && found[0].starts_with("src/middle/a.rs:1: "), "{planted}: {found:?}");
        }
        let house = House { macros: &[("say", "top")], ..HOUSE };
        let source = Source { path: "middle/a.rs".into(), text: "fn f() { crate::say!(\"x\") }".into() };
        let found = violations(&house, &[source]).unwrap();
        assert!(found.len() == 1 && found[0].contains("`crate::say` goes up"), "{found:?}");
    }

    #[test]
    fn a_test_may_import_any_room() {
        let planted = "#[cfg(test)]\nmod tests {\n    use crate::top::run;\n}\n#[cfg(test)]\nmod helper;\n";
        assert_eq!(found(&[("middle/mod.rs", planted), ("middle/helper.rs", "use crate::top::run;")]), [""; 0]);
    }

    #[test]
    fn a_file_outside_a_room_and_a_room_outside_the_order_are_reported() {
        let found =
            found(&[("loose.rs", ""), ("other/mod.rs", ""), ("main.rs", ""), ("lib.rs", "mod top;\nfn f() {}")]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("src/loose.rs:1: lies outside a room"), "{found:?}");
        assert!(found[1].starts_with("src/other/mod.rs:1: room other has no place"), "{found:?}");
        assert!(found[2].starts_with("src/lib.rs:2: "), "{found:?}");
    }

    #[test]
    fn an_import_of_the_root_is_reported_because_it_hides_the_room() {
        for planted in ["use crate::*;", "use super::super::*;", "use crate::Thing;"] {
            let found = found(&[("middle/a.rs", planted)]);
            assert!(found.len() == 1 && found[0].contains("lies in no room"), "{planted}: {found:?}");
        }
    }

    #[test]
    fn within_a_room_modules_import_lower_levels_only() {
        let inner: &[Inner] = &[Inner { room: "middle", levels: &[&["a", "b"], &["shared"]] }];
        let house = House { inner, ..HOUSE };
        let found =
            |path: &str, text: &str| violations(&house, &[Source { path: path.into(), text: text.into() }]).unwrap();
        assert_eq!(found("middle/a.rs", "use crate::middle::shared::x; use super::Item;"), [""; 0]);
        assert_eq!(found("middle/a/part.rs", "use super::other; use crate::middle::a::y;"), [""; 0]);
        assert_eq!(found("middle/mod.rs", "use crate::middle::b;"), [""; 0]);
        for (path, planted) in [
            ("middle/a.rs", "use crate::middle::b::run;"),
            ("middle/a.rs", "use super::b::run as x;"),
            ("middle/shared.rs", "use crate::middle::a;"),
        ] {
            let found = found(path, planted);
            assert!(
                found.len() == 1 && found[0].contains("goes up or aside within room middle"),
                "{planted}: {found:?}"
            );
        }
        assert!(found("middle/new.rs", "")[0].contains("module new has no level"));
    }

    #[test]
    fn a_detour_around_the_test_is_reported() {
        let found = found(&[("middle/a.rs", "extern crate self as me;")]);
        assert!(found.len() == 1 && found[0].starts_with("src/middle/a.rs:1: `extern crate` hides"), "{found:?}");
    }

    #[test]
    fn a_file_that_does_not_parse_is_an_error_that_names_it() {
        let source = Source { path: "top/a.rs".into(), text: "fn {".into() };
        assert!(format!("{:#}", violations(&HOUSE, &[source]).unwrap_err()).contains("src/top/a.rs"));
    }
}
