//! Self-contained pages: no script, no font, no external address. Well-formed as XML too, so that a test can check every page
//! against these rules. `report` and `compare` share the parts; each part takes plain text and returns [`Markup`], so that
//! unescaped text cannot reach a page.

pub(crate) mod axis;
pub(crate) mod chart;
#[cfg(test)]
mod delay_plot;
pub(crate) mod density;
pub(crate) mod environment;
pub(crate) mod moment;
pub(crate) mod table;

use std::fmt;

use maud::{DOCTYPE, PreEscaped, Render, html};

pub(crate) use maud::Markup;

use crate::output::is_deceptive;

/// The look of every page: light, dark, narrow, on paper.
const STYLE: &str = include_str!("style.css");

/// Metadata of every page. By hand, because maud leaves void elements open, which is not well-formed XML.
const META: &str = concat!(
    "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
    "<meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" content=\"vmentry ",
    env!("CARGO_PKG_VERSION"),
    "\"/>\n"
);

/// A part of a page that the navigation links to.
pub(crate) struct Section {
    /// anchor
    pub(crate) id: &'static str,
    /// heading
    pub(crate) title: &'static str,
    /// content below the heading
    pub(crate) body: Markup,
}

/// Text as elements and quoted attributes show it: the one place where names from a recording are escaped. Control characters,
/// and those that change the direction of text, are shown as a replacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if is_deceptive(c) => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl Render for Text<'_> {
    fn render_to(&self, out: &mut String) {
        *out += &self.to_string();
    }
}

/// A whole page.
pub(crate) fn page(title: &str, subtitle: &str, sections: &[Section]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let page = html! {
        (DOCTYPE) "\n"
        html lang="en" {
            head {
                "\n" (PreEscaped(META))
                title { (Text(title)) } "\n"
                style { "\n" (PreEscaped(STYLE)) } "\n"
            }
            "\n"
            body {
                "\n"
                a class="skip" href="#main" { "Skip to the content" } "\n"
                header { h1 { (Text(title)) } p { (Text(subtitle)) } } "\n"
                nav aria-label="Sections" { ul { @for s in sections {
                    li { a href={ "#" (s.id) } { (Text(s.title)) } } "\n"
                } } } "\n"
                main id="main" { @for s in sections {
                    "\n"
                    section id=(s.id) aria-labelledby={ (s.id) "-title" } {
                        h2 id={ (s.id) "-title" } { (Text(s.title)) } "\n"
                        (s.body)
                    }
                } } "\n"
                footer { p { "made by vmentry " (version) } }
            }
        }
        "\n"
    };
    page.into_string()
}

/// Parts one after the other.
pub(crate) fn join(parts: impl IntoIterator<Item = Markup>) -> Markup {
    html! { @for part in parts { (part) } }
}

/// A paragraph that is read before anything else. `word` stands in front of it, because colour alone must not carry the meaning.
pub(crate) fn callout(tone: Tone, word: &str, text: &str) -> Markup {
    html! {
        p class={ "callout " (tone.class()) } {
            @if !word.is_empty() { strong { (Text(word)) } " " }
            (Text(text))
        }
        "\n"
    }
}

/// Tone of a [`callout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// something is wrong
    Alarm,
    /// nothing is wrong
    Fine,
    /// the answer to the page's question
    Answer,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Fine => "fine",
            Self::Answer => "answer",
        }
    }
}

/// A heading within a section.
pub(crate) fn heading(text: &str) -> Markup {
    html! { h3 { (Text(text)) } "\n" }
}

/// A paragraph.
pub(crate) fn paragraph(text: &str) -> Markup {
    html! { p { (Text(text)) } "\n" }
}

/// A bulleted list; nothing if it is empty.
pub(crate) fn list<T: AsRef<str>>(points: &[T]) -> Markup {
    html! {
        @if !points.is_empty() {
            ul { @for point in points { li { (Text(point.as_ref())) } "\n" } } "\n"
        }
    }
}

/// The names of colours: name, and class in the style.
pub(crate) fn legend(names: &[(&str, &str)]) -> Markup {
    html! {
        ul class="legend" { @for (name, class) in names {
            li { span class={ "key " (class) } { "" } (Text(name)) } "\n"
        } }
        "\n"
    }
}

/// A number that sums a page up.
pub(crate) struct Tile {
    /// name of the number
    pub(crate) name: &'static str,
    /// the number with its unit
    pub(crate) value: table::Cell,
    /// its source; may be empty
    pub(crate) note: String,
}

/// Tiles side by side.
pub(crate) fn tiles(tiles: &[Tile]) -> Markup {
    html! {
        dl class="tiles" { @for Tile { name, value, note } in tiles {
            div {
                dt { (Text(name)) } dd class=[value.is_word().then_some("word")] { (value) }
                @if !note.is_empty() { dd class="note" { (Text(note)) } }
            }
            "\n"
        } }
        "\n"
    }
}

/// Content behind a summary, such as the numbers behind a picture; printed in full.
pub(crate) fn details(summary: &str, content: &Markup) -> Markup {
    html! { details { summary { (Text(summary)) } "\n" (content) } "\n" }
}

/// Parts side by side if there is room.
pub(crate) fn grid(parts: &[Markup]) -> Markup {
    html! { div class="grid" { "\n" @for part in parts { (part) } } "\n" }
}

#[cfg(test)]
pub(crate) mod tests {
    //! The rules for every page, and tests of them.

    use std::collections::BTreeSet;

    use roxmltree::{Document, Node};

    use super::*;

    /// Checks a page against the rules: well-formed, self-contained, and accessible as far as its structure shows.
    pub(crate) fn check(html: &str) {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let page = Document::parse_with_options(html, options).expect("well-formed");
        for address in ["http://", "https://", "url(", "@import", "javascript:"] {
            assert!(!html.contains(address), "{address}");
        }
        check_self_contained(&page);
        check_structure(&page);
        check_ids(&page);
        named(&page, "svg").for_each(check_picture);
        named(&page, "table").for_each(check_table);
    }

    fn named<'a>(page: &'a Document<'_>, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
        page.root().descendants().filter(move |n| n.has_tag_name(name))
    }

    fn text(node: Node<'_, '_>) -> String {
        node.descendants().filter_map(|t| t.text()).collect::<String>().trim().to_owned()
    }

    fn check_self_contained(page: &Document<'_>) {
        for name in
            ["script", "link", "iframe", "object", "embed", "img", "image", "use", "foreignObject", "base", "form"]
        {
            assert_eq!(named(page, name).count(), 0, "<{name}>");
        }
        for a in page.descendants().flat_map(|n| n.attributes()) {
            assert!(!a.name().starts_with("on"), "{}", a.name());
            assert!(!matches!(a.name(), "href" | "src") || a.value().starts_with('#'), "{}", a.value());
            assert_ne!(a.name(), "style", "inline style");
        }
    }

    fn check_structure(page: &Document<'_>) {
        assert_eq!(page.root_element().attribute("lang"), Some("en"));
        for name in ["title", "main", "nav", "header", "h1"] {
            let count = named(page, name).filter(|n| !n.ancestors().any(|a| a.has_tag_name("svg"))).count();
            assert_eq!(count, 1, "<{name}>");
        }
        assert!(named(page, "meta").any(|m| m.attribute("name") == Some("viewport")));
        let mut level = 0;
        for n in page.descendants() {
            let name = n.tag_name().name();
            if let Some(l) = name.strip_prefix('h').and_then(|l| l.parse::<u32>().ok()) {
                assert!(l <= level + 1, "{name} after h{level}: {}", text(n));
                assert!(!text(n).is_empty());
                level = l;
            }
        }
    }

    fn check_ids(page: &Document<'_>) {
        let ids: Vec<_> = page.descendants().filter_map(|n| n.attribute("id")).collect();
        let unique: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(unique.len(), ids.len(), "every id once: {ids:?}");
        for n in page.descendants() {
            for id in n.attribute("aria-labelledby").iter().flat_map(|v| v.split(' ')) {
                assert!(unique.contains(id), "aria-labelledby {id}");
            }
            if let Some(target) = n.attribute("href") {
                assert!(unique.contains(&target[1..]), "{target}");
            }
        }
    }

    fn check_picture(svg: Node<'_, '_>) {
        assert_eq!(svg.attribute("role"), Some("img"));
        for name in ["title", "desc"] {
            let part = svg.children().find(|c| c.tag_name().name() == name);
            assert!(part.is_some_and(|p| !text(p).is_empty()), "svg without {name}");
        }
        for a in svg.descendants().flat_map(|shape| shape.attributes()) {
            assert!(!a.value().contains("NaN") && !a.value().contains("inf"), "{a:?}");
        }
        let figure = svg.ancestors().find(|a| a.has_tag_name("figure")).expect("a figure around it");
        let near = figure.ancestors().find(|a| a.has_tag_name("section")).expect("a section around it");
        assert!(near.descendants().any(|d| d.has_tag_name("table")), "a picture has its numbers in a table");
    }

    fn check_table(table: Node<'_, '_>) {
        assert_eq!(table.children().find(|c| c.is_element()).map(|c| c.tag_name().name()), Some("caption"));
        let cells = |row: Node<'_, '_>| row.children().filter(|c| c.is_element()).count();
        let rows: Vec<_> = table.descendants().filter(|d| d.has_tag_name("tr")).collect();
        assert!(rows.iter().all(|r| cells(*r) == cells(rows[0])), "a table's rows are equally long");
        assert!(table.descendants().filter(|d| d.has_tag_name("th")).all(|th| th.has_attribute("scope")));
        let scrolls = table.parent().expect("a parent");
        assert_eq!((scrolls.attribute("tabindex"), scrolls.attribute("role")), (Some("0"), Some("region")));
    }

    /// A name that tries to break out of its context.
    pub(crate) const HOSTILE: &str = "<script>alert(\"1\")</script>&'\u{1b}[31m\u{202e}=cmd|'/c calc'!A1";

    #[test]
    fn a_hostile_name_is_escaped() {
        let text = Text(HOSTILE).to_string();
        assert!(!text.contains(['<', '>', '"', '\'', '\u{1b}', '\u{202e}']), "{text}");
        assert!(text.starts_with("&lt;script&gt;alert(&quot;1&quot;)"));
    }

    #[test]
    fn a_page_of_hostile_names_keeps_the_rules() {
        let tile = Tile { name: "a", value: HOSTILE.into(), note: HOSTILE.into() };
        let body = join([
            heading(HOSTILE),
            paragraph(HOSTILE),
            list(&[HOSTILE]),
            details(HOSTILE, &paragraph("x")),
            callout(Tone::Alarm, HOSTILE, HOSTILE),
            tiles(&[tile]),
        ]);
        check(&page(HOSTILE, HOSTILE, &[Section { id: "one", title: "One", body }]));
    }

    /// Relative luminance by WCAG 2.
    pub(crate) fn luminance(color: &str) -> f64 {
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn text_and_lines_have_enough_contrast() {
        let themes: Vec<_> = STYLE.split(":root {").skip(1).take(2).collect();
        for theme in themes {
            let color = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap();
                luminance(rest.split(';').next().unwrap())
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (color(a), color(b));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for page in ["page", "panel", "alarm-page", "fine-page", "answer-page"] {
                assert!(contrast("ink", page) >= 7.0, "ink on {page}");
            }
            let pairs = [
                ("quiet", "page"),
                ("quiet", "panel"),
                ("link", "page"),
                ("alarm", "alarm-page"),
                ("fine", "fine-page"),
            ];
            for (front, back) in pairs.into_iter().chain([("a", "page"), ("b", "page"), ("quiet", "alarm-page")]) {
                assert!(contrast(front, back) >= 4.5, "{front} on {back}: {}", contrast(front, back));
            }
            for part in ["guest", "kernel", "user", "polled", "idle", "steal"] {
                assert!(contrast("on", part) >= 4.5, "on {part}: {}", contrast("on", part));
            }
        }
    }
}
