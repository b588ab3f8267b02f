//! The XML of WebDAV (RFC 4918, section 8). Documents come from strangers: they are small, are read whole into a tree,
//! and have bounds and no entities. Also writes our own documents.

use std::fmt::Write;

use quick_xml::NsReader;
use quick_xml::escape::{resolve_xml_entity, unescape};
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};

/// The namespace of WebDAV itself.
pub(super) const DAV: &str = "DAV:";
/// The most bytes of a document.
pub(super) const DOCUMENT_MAX: usize = 128 << 10;
/// The most elements of a document, levels of nesting, and attributes of one element.
const ELEMENTS_MAX: usize = 2000;
const DEPTH_MAX: usize = 32;
const ATTRIBUTES_MAX: usize = 32;

/// The namespaces of the prefixes `xml` and `xmlns`. No element may use them under another prefix (Namespaces in XML
/// 1.0, section 3).
const RESERVED: [&str; 2] =
    ["http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/"];

/// A document that is malformed or too large. The text says what is wrong, and quotes nothing from the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the XML {0}")]
pub(super) struct XmlError(pub(super) &'static str);

/// More bytes than a document may have.
pub(super) const TOO_LONG: XmlError = XmlError("is longer than 128 KiB");
const BROKEN: XmlError = XmlError("is not well-formed");

/// A name with its namespace. The prefix is kept but has no meaning.
#[derive(Clone, Debug, Default)]
pub(super) struct XmlName {
    pub(super) namespace: String,
    pub(super) local: String,
    prefix: String,
}

/// An element with all its content.
#[derive(Clone, Debug, Default)]
pub(super) struct XmlElement {
    pub(super) name: XmlName,
    attributes: Vec<(XmlName, String)>,
    content: Vec<XmlNode>,
}

#[derive(Clone, Debug)]
enum XmlNode {
    Element(XmlElement),
    Text(String),
}

impl PartialEq for XmlName {
    fn eq(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.local == other.local
    }
}

impl XmlName {
    /// A name in WebDAV's own namespace.
    pub(super) fn dav(local: &str) -> Self {
        Self { namespace: DAV.to_owned(), local: local.to_owned(), prefix: String::new() }
    }

    pub(super) fn new(namespace: &str, local: &str) -> Self {
        Self { namespace: namespace.to_owned(), local: local.to_owned(), prefix: String::new() }
    }

    /// An empty element of this name.
    pub(super) fn empty(&self) -> String {
        match (self.namespace.as_str(), self.local.as_str()) {
            (DAV, local) => format!("<D:{local}/>"),
            ("", local) => format!("<{local} xmlns=\"\"/>"),
            (space, local) => format!("<x:{local} xmlns:x=\"{}\"/>", text(space)),
        }
    }

    fn written(&self) -> String {
        match self.prefix.as_str() {
            "" => self.local.clone(),
            prefix => format!("{prefix}:{}", self.local),
        }
    }
}

impl XmlElement {
    /// Whether it is the WebDAV element of this name.
    pub(super) fn is(&self, local: &str) -> bool {
        self.name.namespace == DAV && self.name.local == local
    }

    /// The child elements.
    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|node| match node {
            XmlNode::Element(element) => Some(element),
            XmlNode::Text(_) => None,
        })
    }

    /// The child that is the WebDAV element of this name.
    pub(super) fn child(&self, local: &str) -> Option<&Self> {
        self.children().find(|child| child.is(local))
    }

    /// `xml:lang`.
    pub(super) fn lang(&self) -> Option<&str> {
        let own = |(name, _): &&(XmlName, String)| name.prefix == "xml" && name.local == "lang";
        self.attributes.iter().find(own).map(|(_, value)| value.as_str())
    }

    /// The element with `xml:lang` set, unless it has one already.
    pub(super) fn in_language(mut self, lang: Option<&str>) -> Self {
        if let (None, Some(lang)) = (self.lang(), lang) {
            let (local, prefix) = ("lang".to_owned(), "xml".to_owned());
            let name = XmlName { namespace: String::new(), local, prefix };
            self.attributes.push((name, lang.to_owned()));
        }
        self
    }

    /// The element as XML that declares every prefix it uses.
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        self.write_into(&mut out);
        out
    }

    fn write_into(&self, out: &mut String) {
        let name = self.name.written();
        let _ = write!(out, "<{name}");
        let mut declared = vec!["xml"];
        for (name, is_attribute) in std::iter::once((&self.name, false))
            .chain(self.attributes.iter().map(|(name, _)| (name, true)))
        {
            // An attribute without a prefix is in no namespace, whatever the element's is.
            if declared.contains(&name.prefix.as_str()) || is_attribute && name.prefix.is_empty() {
                continue;
            }
            declared.push(&name.prefix);
            let colon = if name.prefix.is_empty() { "" } else { ":" };
            let _ = write!(out, " xmlns{colon}{}=\"{}\"", name.prefix, text(&name.namespace));
        }
        for (name, value) in &self.attributes {
            let _ = write!(out, " {}=\"{}\"", name.written(), text(value));
        }
        if self.content.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.content {
            match node {
                XmlNode::Element(element) => element.write_into(out),
                XmlNode::Text(plain) => out.push_str(&text(plain)),
            }
        }
        let _ = write!(out, "</{name}>");
    }
}

/// Escapes text for XML. Characters that XML cannot express are left out.
pub(super) fn text(plain: &str) -> String {
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars().filter(|c| is_character(*c)) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

/// Whether the character is allowed in XML 1.0 (section 2.2).
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// Parses a document.
pub(super) fn parse(document: &[u8]) -> Result<XmlElement, XmlError> {
    parse_within(document, ATTRIBUTES_MAX)
}

/// Parses what [`XmlElement::write`] wrote. It may have more attributes: a declaration for each prefix, and `xml:lang`.
pub(super) fn parse_written(document: &[u8]) -> Result<XmlElement, XmlError> {
    parse_within(document, 2 * ATTRIBUTES_MAX + 2)
}

fn parse_within(document: &[u8], attributes_max: usize) -> Result<XmlElement, XmlError> {
    if document.len() > DOCUMENT_MAX {
        return Err(TOO_LONG);
    }
    let document = std::str::from_utf8(document).map_err(|_| XmlError("is not UTF-8"))?;
    let mut reader = NsReader::from_str(document.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<XmlElement> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        let event = reader.read_event().map_err(|_| BROKEN)?;
        let more = match event {
            Event::Start(start) => {
                elements += 1;
                if elements > ELEMENTS_MAX || open.len() >= DEPTH_MAX {
                    return Err(XmlError("has too many elements, or too many in each other"));
                }
                if root.is_some() {
                    return Err(BROKEN);
                }
                open.push(element(&reader, &start, attributes_max)?);
                continue;
            }
            Event::End(_) => {
                let element = open.pop().ok_or(BROKEN)?;
                match open.last_mut() {
                    Some(outer) => outer.content.push(XmlNode::Element(element)),
                    None => root = Some(element),
                }
                continue;
            }
            Event::Text(said) => said.xml10_content().into_owned(),
            Event::CData(said) => said.xml10_content().into_owned(),
            Event::GeneralRef(reference) => character(&reference)?,
            Event::DocType(_) => return Err(XmlError("has a DOCTYPE, which is not read here")),
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Empty(_) => continue,
        };
        if !more.chars().all(is_character) {
            return Err(BROKEN);
        }
        match open.last_mut() {
            Some(element) => match element.content.last_mut() {
                Some(XmlNode::Text(text)) => text.push_str(&more),
                _ => element.content.push(XmlNode::Text(more)),
            },
            None if more.trim().is_empty() => {}
            None => return Err(BROKEN),
        }
    }
    if open.is_empty() { root.ok_or(BROKEN) } else { Err(BROKEN) }
}

fn character(reference: &BytesRef<'_>) -> Result<String, XmlError> {
    if let Some(c) = reference.resolve_char_ref().map_err(|_| BROKEN)? {
        return Ok(c.to_string());
    }
    let known = resolve_xml_entity(reference);
    known.map(str::to_owned).ok_or(XmlError("names an entity that is not XML's own"))
}

fn element(
    reader: &NsReader<&[u8]>,
    start: &BytesStart<'_>,
    attributes_max: usize,
) -> Result<XmlElement, XmlError> {
    let resolver = reader.resolver();
    let mut attributes = Vec::new();
    for (number, attribute) in start.attributes().enumerate() {
        let attribute: Attribute<'_> = attribute.map_err(|_| BROKEN)?;
        if number >= attributes_max {
            return Err(XmlError("has too many attributes on one element"));
        }
        let value = unescape(&attribute.value).map_err(|_| BROKEN)?.into_owned();
        if !value.chars().all(is_character) {
            return Err(BROKEN);
        }
        match attribute.key.as_namespace_binding() {
            // A prefix cannot be undeclared (Namespaces in XML 1.0, section 6.1).
            Some(PrefixDeclaration::Named(_)) if value.is_empty() => return Err(BROKEN),
            // The parser compares the raw text, in which a character reference may stand for a character.
            Some(PrefixDeclaration::Named("xml")) if value == RESERVED[0] => {}
            Some(_) if RESERVED.contains(&value.as_str()) => return Err(BROKEN),
            Some(_) => {}
            None => {
                let (namespace, _) = resolver.resolve_attribute(attribute.key);
                let namespace = space(namespace, attribute.key.prefix().is_some())?;
                let name = attribute.key;
                if namespace == RESERVED[1] {
                    return Err(BROKEN);
                }
                attributes.push((xml_name(namespace, name.as_ref())?, value));
            }
        }
    }
    let (namespace, _) = resolver.resolve_element(start.name());
    let namespace = space(namespace, start.name().prefix().is_some())?;
    if RESERVED.contains(&namespace.as_str()) {
        return Err(BROKEN);
    }
    let name = xml_name(namespace, start.name().as_ref())?;
    Ok(XmlElement { name, attributes, content: Vec::new() })
}

fn space(resolved: ResolveResult<'_>, has_prefix: bool) -> Result<String, XmlError> {
    match resolved {
        ResolveResult::Bound(space) => {
            unescape(space.as_ref()).map(|space| space.into_owned()).map_err(|_| BROKEN)
        }
        ResolveResult::Unbound if !has_prefix => Ok(String::new()),
        _ => Err(BROKEN),
    }
}

/// Checks a name, since the parser does not, and names are written again.
fn xml_name(namespace: String, written: &str) -> Result<XmlName, XmlError> {
    let (prefix, local) = written.split_once(':').unwrap_or(("", written));
    let is_part = |part: &str| {
        let first = part.chars().next();
        let begins = first.is_some_and(|c| c.is_alphabetic() || c == '_' || !c.is_ascii());
        let goes_on =
            |c: char| c.is_alphanumeric() || "-._".contains(c) || !c.is_ascii() && is_character(c);
        begins && part.chars().all(goes_on)
    };
    if !is_part(local) || !prefix.is_empty() && !is_part(prefix) {
        return Err(BROKEN);
    }
    Ok(XmlName { namespace, local: local.to_owned(), prefix: prefix.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(document: &str) -> &'static str {
        parse(document.as_bytes()).expect_err(document).0
    }

    #[test]
    fn what_is_read_is_written_again_and_means_the_same() {
        let document = "\u{feff}<?xml version='1.0' encoding='utf-8'?><!-- c --><a:p xmlns:a='DAV:' xml:lang=\"de\">\
                        <b xmlns='http://x/?a=1&amp;b' a:k='&lt;\"'>t &amp; &#65536;<![CDATA[<&]]></b><c/> </a:p>\n";
        let read = parse(document.as_bytes()).unwrap();
        assert!(read.is("p") && read.lang() == Some("de"));
        let again = read.write();
        assert_eq!(
            again,
            "<a:p xmlns:a=\"DAV:\" xml:lang=\"de\"><b xmlns=\"http://x/?a=1&amp;b\" xmlns:a=\"DAV:\" \
             a:k=\"&lt;&quot;\">t &amp; \u{10000}&lt;&amp;</b><c xmlns=\"\"/> </a:p>"
        );
        assert_eq!(parse(again.as_bytes()).unwrap().write(), again);
        let child = read.children().next().unwrap();
        assert_eq!(child.name, XmlName::new("http://x/?a=1&b", "b"));
        assert_eq!(child.clone().in_language(Some("fr")).lang(), Some("fr"));
        assert_eq!(child.name.empty(), "<x:b xmlns:x=\"http://x/?a=1&amp;b\"/>");
        assert_eq!(text("a\0<\u{1}\u{fffe}\n\""), "a&lt;\n&quot;");
    }

    #[test]
    fn what_is_broken_or_bottomless_is_refused() {
        for document in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "<x:a/>",
            "<a x:b='1'/>",
            "<a xmlns:x=''/>",
            "<a b='1' b='2'/>",
            "<a b=1/>",
            "<a>&#0;</a>",
            "<a>\u{1}</a>",
            "<a b='&#1;'/>",
            "<a b='&other;'/>",
            "<a:b:c xmlns:a='x'/>",
            "<xmlns:a/>",
            "<xml:a/>",
            "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
            "<a xmlns:b='http://www.w3.org/XML/1998/namespace' b:c=''/>",
            "<p xmlns='urn:x' xmlns:b='http://www.w3.org/XML/1998/namespac&#101;' b:c='1'/>",
            "<1/>",
            "<a><![CDATA[",
            "</a>",
        ] {
            assert_eq!(refused(document), BROKEN.0, "{document}");
        }
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\">]><a>&b;</a>";
        assert!(refused(bomb).contains("DOCTYPE"));
        assert!(refused("<a>&b;</a>").contains("entity"));
        assert!(refused(&"<a>".repeat(33)).contains("too many"));
        assert!(refused(&format!("<a>{}</a>", "<b/>".repeat(2001))).contains("too many"));
        let many = (0..40).fold(String::new(), |all, number| format!("{all} a{number}='1'"));
        assert!(refused(&format!("<a{many}/>")).contains("attributes"));
        assert!(refused(&format!("<a>{}</a>", " ".repeat(DOCUMENT_MAX))).contains("128 KiB"));
        assert!(parse(b"<a>\xff</a>").unwrap_err().0.contains("UTF-8"));
    }
}
