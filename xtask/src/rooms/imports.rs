//! The imports of a source file: `use` items, inline paths, and paths in the tokens of macros and attributes.

use std::iter::Peekable;

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Attribute, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility,
    spanned::Spanned,
    visit::{self, Visit},
};

/// One path of a file that leads to another place of the crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// Line of the file, from 1.
    pub(super) line: usize,
    /// The path as it is written.
    pub(super) written: String,
    /// The path from the crate's root, without `crate`. Empty for the root itself; a glob ends with `*`.
    pub(super) target: Vec<String>,
}

/// Everything about a file that the order of rooms depends on.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Imports outside tests.
    pub(super) imports: Vec<Import>,
    /// Modules declared as `#[cfg(test)] mod name;`, by their paths from the crate's root.
    pub(super) test_modules: Vec<Vec<String>>,
    /// Lines of items that are no `mod name;`.
    pub(super) other_items: Vec<usize>,
    /// Lines and names of what would hide an import from this reader: `extern crate self`, `#[path]`, `include!`, `$crate::$name`.
    pub(super) detours: Vec<(usize, &'static str)>,
}

/// The path of a file's module from the crate's root: `lab/disk.rs` is `[lab, disk]`, `lab/mod.rs` is `[lab]`.
pub(super) fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<_> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    module.pop_if(|last| last == "mod" || (!path.contains('/') && (last == "main" || last == "lib")));
    module
}

/// Reads a file, given by its path below `src` and its text.
pub(super) fn read(path: &str, text: &str) -> syn::Result<File> {
    let parsed = syn::parse_file(text)?;
    let mut reader = Reader { module: module_of(path), file: File::default() };
    for item in &parsed.items {
        if !matches!(item, Item::Mod(ItemMod { content: None, .. })) && !is_test(attributes(item)) {
            reader.file.other_items.push(line_of_item(item));
        }
    }
    reader.visit_file(&parsed);
    Ok(reader.file)
}

struct Reader {
    /// The module that is being read, from the crate's root.
    module: Vec<String>,
    file: File,
}

impl Reader {
    /// Notes a path that begins with `crate`, `self` or `super`; others stay in their module or lead to another crate.
    fn note(&mut self, segments: &[(String, usize)]) {
        let Some((first, line)) = segments.first() else { return };
        let mut target = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => return,
        };
        for (segment, _) in segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(target.pop()),
                name => target.push(name.to_owned()),
            }
        }
        let written: Vec<_> = segments.iter().map(|(segment, _)| segment.as_str()).collect();
        let written = written.join("::").trim_end_matches("::self").to_owned();
        // The last segment's line: that of the name within a group over several lines.
        let line = segments.last().map_or(*line, |(_, line)| *line);
        self.file.imports.push(Import { line, written, target });
    }

    fn note_use(&mut self, prefix: &mut Vec<(String, usize)>, tree: &UseTree) {
        let length = prefix.len();
        match tree {
            UseTree::Path(path) => {
                prefix.push(segment(&path.ident));
                self.note_use(prefix, &path.tree);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_use(prefix, tree);
                }
            }
            UseTree::Name(name) => {
                prefix.push(segment(&name.ident));
                self.note(prefix);
            }
            UseTree::Rename(rename) => {
                prefix.push(segment(&rename.ident));
                self.note(prefix);
            }
            UseTree::Glob(glob) => {
                prefix.push(("*".to_owned(), glob.star_token.span.start().line));
                self.note(prefix);
            }
        }
        prefix.truncate(length);
    }

    /// Notes paths in tokens that are not parsed: the body of a macro, an attribute.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                TokenTree::Ident(first) if first == "crate" || first == "self" || first == "super" => {
                    let line = first.span().start().line;
                    let path = rest_of_path(segment(&first), &mut tokens);
                    // `crate::$name`: the macro's caller says where it leads to.
                    if path.len() == 1
                        && matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '$')
                    {
                        self.file.detours.push((line, "crate::$"));
                    }
                    if path.len() > 1 {
                        self.note(&path);
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes paths in the strings of an attribute: `#[serde(with = "crate::room::module")]`.
    fn note_strings(&mut self, tokens: TokenStream) {
        for token in tokens {
            if let TokenTree::Literal(literal) = token {
                let line = literal.span().start().line;
                let text = literal.to_string();
                self.note(&text.trim_matches('"').split("::").map(|name| (name.to_owned(), line)).collect::<Vec<_>>());
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        } else if let Item::Mod(ItemMod { ident, content: None, .. }) = item {
            self.file.test_modules.push([self.module.as_slice(), &[ident.to_string()]].concat());
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(function) => function.attrs.as_slice(),
            ImplItem::Const(constant) => &constant.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.file.detours.push((item.span().start().line, "extern crate"));
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_use(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|part| segment(&part.ident)).collect();
        // `self` alone is the receiver of a method.
        if segments.len() > 1 {
            self.note(&segments);
        }
        visit::visit_path(self, path);
    }

    /// `pub(crate)` and `pub(in crate::room)` are no imports.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        if invocation.path.is_ident("include") {
            self.file.detours.push((invocation.span().start().line, "include!"));
        }
        self.note_tokens(invocation.tokens.clone());
        visit::visit_macro(self, invocation);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("path") {
            self.file.detours.push((attribute.span().start().line, "#[path]"));
        }
        if let Meta::List(list) = &attribute.meta {
            self.note_tokens(list.tokens.clone());
            self.note_strings(list.tokens.clone());
        }
    }
}

fn segment(name: &Ident) -> (String, usize) {
    (name.to_string(), name.span().start().line)
}

/// Returns the path that begins with this segment, with every `:: name` that follows in the tokens.
fn rest_of_path(
    first: (String, usize),
    tokens: &mut Peekable<impl Iterator<Item = TokenTree>>,
) -> Vec<(String, usize)> {
    let mut path = vec![first];
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    while tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some() {
        match tokens.next_if(|token| matches!(token, TokenTree::Ident(_))) {
            Some(TokenTree::Ident(name)) => path.push(segment(&name)),
            _ => break,
        }
    }
    path
}

/// Whether an item is compiled for tests only: `#[cfg(test)]`, `#[cfg(all(test, ...))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    let needs_test = |attribute: &Attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let mut tokens = list.tokens.clone().into_iter();
        match (tokens.next(), tokens.next()) {
            (Some(TokenTree::Ident(name)), None) => name == "test",
            (Some(TokenTree::Ident(name)), Some(TokenTree::Group(group))) if name == "all" => {
                group.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(name) if name == "test"))
            }
            _ => false,
        }
    };
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && needs_test(attribute))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn line_of_item(item: &Item) -> usize {
    item.span().start().line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(path: &str, text: &str) -> Vec<String> {
        let file = read(path, text).unwrap();
        file.imports.iter().map(|import| format!("{} {}", import.line, import.target.join("::"))).collect()
    }

    #[test]
    fn groups_globs_and_renames_are_taken_apart_with_their_lines() {
        let text = "use crate::{\n    a,\n    b::{self, c as d},\n    e::*,\n};\nuse std::fs;\nuse f::g;\n";
        assert_eq!(targets("x/y.rs", text), ["2 a", "3 b", "3 b::c", "4 e::*"]);
        assert_eq!(targets("x/y.rs", "use crate::*; use crate as c;"), ["1 *", "1 "]);
    }

    #[test]
    fn super_leads_out_of_the_module_and_of_inline_modules() {
        assert_eq!(
            targets("x/y.rs", "use super::z; use super::super::a::b; use self::c;"),
            ["1 x::z", "1 a::b", "1 x::y::c"]
        );
        assert_eq!(targets("x/mod.rs", "use super::a;"), ["1 a"]);
        assert_eq!(targets("x/y.rs", "mod inner { use super::super::super::a; }"), ["1 a"]);
    }

    #[test]
    fn inline_paths_and_those_in_macros_and_attributes_are_imports() {
        let text = "pub(crate) fn f(&self) -> crate::a::B {\n    self.x();\n    crate::say!(\"{}\", crate::c::d());\n}\n\
            #[serde(with = \"crate::e\")]\nstruct S;\nmacro_rules! m { () => { $crate::f::g(\"crate::h\") } }\n";
        assert_eq!(targets("x/y.rs", text), ["1 a::B", "3 c::d", "3 say", "5 e", "7 f::g"]);
    }

    #[test]
    fn detours_around_this_reader_are_noted() {
        for (planted, name) in [
            ("extern crate self as me;", "extern crate"),
            ("#[path = \"../b.rs\"] mod x;", "#[path]"),
            ("include!(\"../b.rs\");", "include!"),
            ("macro_rules! m { ($($a:ident)*) => { crate::$($a)::* } }", "crate::$"),
        ] {
            assert_eq!(read("x/y.rs", planted).unwrap().detours, [(1, name)], "{planted}");
        }
        assert_eq!(read("x/y.rs", "const A: &str = include_str!(\"a\");").unwrap().detours, []);
    }

    #[test]
    fn items_of_tests_are_left_out_and_their_files_are_named() {
        let text = "#[cfg(test)] mod tests { use crate::a; }\n#[cfg(all(test, unix))] use crate::b;\n\
            #[cfg(test)] mod helper;\n#[cfg(not(test))] use crate::c;\nmod d;\nfn e() {}\n";
        let file = read("x/y.rs", text).unwrap();
        assert_eq!(targets("x/y.rs", text), ["4 c"]);
        assert_eq!(file.test_modules, [["x", "y", "helper"]]);
        assert_eq!(file.other_items, [4, 6]);
    }

    #[test]
    fn files_are_modules_of_their_folders() {
        assert_eq!(module_of("lab/disk.rs"), ["lab", "disk"]);
        assert_eq!(module_of("lab/mod.rs"), ["lab"]);
        assert_eq!(module_of("main.rs"), [""; 0]);
        assert_eq!(module_of("lab/main.rs"), ["lab", "main"]);
    }
}
