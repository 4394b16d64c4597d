//! Pages that need nothing but themselves: no script, no font, no address of anything. Well-formed as XML too, so that a test can
//! hold every page to its rules. `report` and `compare` share the parts.

pub mod axis;
pub mod chart;
pub mod density;
pub mod environment;
pub mod moment;
pub mod table;

use std::fmt::Write as _;

/// Everything that decides how a page looks: light, dark, narrow, on paper.
const STYLE: &str = include_str!("style.css");

/// A part of a page that the navigation leads to.
pub struct Section {
    /// anchor
    pub id: &'static str,
    /// heading, as text
    pub title: &'static str,
    /// what follows it, as HTML
    pub body: String,
}

/// Text as HTML shows it, in elements and in quoted attributes. Control characters, and those that change the direction of
/// text, cannot come from an honest name: they are shown as a replacement.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if is_deceptive(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that are not shown but change what is: no name of a VM, file or label may bring them.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// A whole page. `title` and `subtitle` are text, the rest is HTML.
pub fn page(title: &str, subtitle: &str, sections: &[Section]) -> String {
    let (title, subtitle) = (escape(title), escape(subtitle));
    let mut links = String::new();
    let mut body = String::new();
    for Section { id, title, body: html } in sections {
        let title = escape(title);
        let _ = writeln!(links, "<li><a href=\"#{id}\">{title}</a></li>");
        let _ = writeln!(
            body,
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{html}</section>"
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta name=\"generator\" content=\"vmentry {version}\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
         <header>\n<h1>{title}</h1>\n<p>{subtitle}</p>\n</header>\n\
         <nav aria-label=\"Sections\">\n<ul>\n{links}</ul>\n</nav>\n\
         <main id=\"main\">\n{body}</main>\n\
         <footer><p>made by vmentry {version}</p></footer>\n</body>\n</html>\n"
    )
}

/// What must be read before anything else. `word` is shown in front, so that colour is not what tells.
pub fn callout(kind: Kind, word: &str, text: &str) -> String {
    let class = kind.class();
    let word = if word.is_empty() { String::new() } else { format!("<strong>{}</strong> ", escape(word)) };
    format!("<p class=\"callout {class}\">{word}{}</p>\n", escape(text))
}

/// How a [`callout`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// something is wrong
    Alarm,
    /// nothing is
    Fine,
    /// the answer to the page's question
    Answer,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Fine => "fine",
            Self::Answer => "answer",
        }
    }
}

/// A heading within a section.
pub fn heading(text: &str) -> String {
    format!("<h3>{}</h3>\n", escape(text))
}

/// A paragraph.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Points of a list; nothing of an empty one.
pub fn list<T: AsRef<str>>(points: &[T]) -> String {
    if points.is_empty() {
        return String::new();
    }
    let points: String = points.iter().map(|p| format!("<li>{}</li>\n", escape(p.as_ref()))).collect();
    format!("<ul>\n{points}</ul>\n")
}

/// Numbers that sum a page up: what, value, and where it comes from. The last may be empty.
pub fn tiles(tiles: &[(&str, String, String)]) -> String {
    let mut out = String::from("<dl class=\"tiles\">\n");
    for (what, value, note) in tiles {
        let (what, value) = (escape(what), escape(value));
        let note = if note.is_empty() { String::new() } else { format!("<dd class=\"note\">{}</dd>", escape(note)) };
        let _ = writeln!(out, "<div><dt>{what}</dt><dd>{value}</dd>{note}</div>");
    }
    out + "</dl>\n"
}

/// What is only looked at by who wants the numbers behind a picture; printed in full. `summary` is text.
pub fn details(summary: &str, html: &str) -> String {
    format!("<details>\n<summary>{}</summary>\n{html}</details>\n", escape(summary))
}

/// Things side by side where there is room.
pub fn grid(parts: &[String]) -> String {
    format!("<div class=\"grid\">\n{}</div>\n", parts.concat())
}

#[cfg(test)]
pub mod tests {
    //! The rules that every page keeps, and tests of them.

    use super::*;

    /// Holds a page to the rules: well-formed, self-contained, and accessible as far as its structure tells.
    pub fn check(html: &str) {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let page = roxmltree::Document::parse_with_options(html, options).expect("well-formed");
        let named = |name: &'static str| page.descendants().filter(move |n| n.has_tag_name(name));
        let text = |n: roxmltree::Node| n.descendants().filter_map(|t| t.text()).collect::<String>().trim().to_owned();
        for name in
            ["script", "link", "iframe", "object", "embed", "img", "image", "use", "foreignObject", "base", "form"]
        {
            assert_eq!(named(name).count(), 0, "<{name}>");
        }
        for address in ["http://", "https://", "url(", "@import", "javascript:"] {
            assert!(!html.contains(address), "{address}");
        }
        for n in page.descendants() {
            for a in n.attributes() {
                assert!(!a.name().starts_with("on"), "{}", a.name());
                assert!(!matches!(a.name(), "href" | "src") || a.value().starts_with('#'), "{}", a.value());
                assert_ne!(a.name(), "style", "inline style");
            }
        }
        assert_eq!(page.root_element().attribute("lang"), Some("en"));
        for name in ["title", "main", "nav", "header", "h1"] {
            let count = named(name).filter(|n| !n.ancestors().any(|a| a.has_tag_name("svg"))).count();
            assert_eq!(count, 1, "<{name}>");
        }
        assert!(named("meta").any(|m| m.attribute("name") == Some("viewport")));
        let ids: Vec<_> = page.descendants().filter_map(|n| n.attribute("id")).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "every id once: {ids:?}");
        let refers = |n: &roxmltree::Node, name: &str| n.attribute(name).map(|v| v.to_owned());
        for n in page.descendants() {
            for id in refers(&n, "aria-labelledby").iter().flat_map(|v| v.split(' ')) {
                assert!(unique.contains(&id), "aria-labelledby {id}");
            }
            if let Some(target) = refers(&n, "href") {
                assert!(unique.contains(&&target[1..]), "{target}");
            }
        }
        let mut level = 0;
        for n in page.descendants() {
            let name = n.tag_name().name();
            if let Some(l) = name.strip_prefix('h').and_then(|l| l.parse::<u32>().ok()) {
                assert!(l <= level + 1, "{name} after h{level}: {}", text(n));
                assert!(!text(n).is_empty());
                level = l;
            }
        }
        for svg in named("svg") {
            assert_eq!(svg.attribute("role"), Some("img"));
            for name in ["title", "desc"] {
                let part = svg.children().find(|c| c.has_tag_name((svg.tag_name().namespace().unwrap_or(""), name)));
                let part = part.or_else(|| svg.children().find(|c| c.tag_name().name() == name));
                assert!(part.is_some_and(|p| !text(p).is_empty()), "svg without {name}");
            }
            for shape in svg.descendants() {
                for a in shape.attributes() {
                    assert!(!a.value().contains("NaN") && !a.value().contains("inf"), "{a:?}");
                }
            }
            let figure = svg.ancestors().find(|a| a.has_tag_name("figure")).expect("a figure around it");
            let near = figure.ancestors().find(|a| a.has_tag_name("section")).expect("a section around it");
            assert!(near.descendants().any(|d| d.has_tag_name("table")), "a picture has its numbers in a table");
        }
        for table in named("table") {
            assert_eq!(table.children().find(|c| c.is_element()).map(|c| c.tag_name().name()), Some("caption"));
            let cells = |row: roxmltree::Node| row.children().filter(|c| c.is_element()).count();
            let rows: Vec<_> = table.descendants().filter(|d| d.has_tag_name("tr")).collect();
            assert!(rows.iter().all(|r| cells(*r) == cells(rows[0])), "a table's rows are equally long");
            assert!(table.descendants().filter(|d| d.has_tag_name("th")).all(|th| th.has_attribute("scope")));
            let scrolls = table.parent().expect("a parent");
            assert_eq!((scrolls.attribute("tabindex"), scrolls.attribute("role")), (Some("0"), Some("region")));
        }
    }

    /// Names that try to break out of wherever they are written.
    pub const HOSTILE: &str = "<script>alert(\"1\")</script>&'\u{1b}[31m\u{202e}=cmd|'/c calc'!A1";

    #[test]
    fn what_a_recording_says_stays_text() {
        let text = escape(HOSTILE);
        assert!(!text.contains(['<', '>', '"', '\'', '\u{1b}', '\u{202e}']), "{text}");
        assert!(text.starts_with("&lt;script&gt;alert(&quot;1&quot;)"));
    }

    #[test]
    fn a_page_keeps_the_rules_whatever_it_is_called() {
        let body = heading(HOSTILE) + &paragraph(HOSTILE) + &list(&[HOSTILE]) + &details(HOSTILE, &paragraph("x"));
        let body = body + &callout(Kind::Alarm, "LOST", HOSTILE) + &tiles(&[("a", HOSTILE.into(), HOSTILE.into())]);
        check(&page(HOSTILE, HOSTILE, &[Section { id: "one", title: "One", body }]));
    }

    /// Relative luminance by WCAG 2.
    fn luminance(color: &str) -> f64 {
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn text_and_lines_stand_out_from_what_is_behind_them() {
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
        }
    }
}
