//! The dashboard: a page that shows a running device in a browser.
//!
//! Its files are static, part of the program, and served to anyone: what is to be seen of the
//! device the page asks of the API, with the token that the user's link has in its fragment
//! (`http://127.0.0.1:9090/#token=…`). A browser sends a fragment to nobody. The token is a
//! header and no cookie, so a page of somebody else's, whatever name it gives this address,
//! asks without it and is refused. [`POLICY`] keeps the page from loading anything from
//! elsewhere, and from taking text of the device (a driver's name comes from the guest) for
//! markup.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::routes::Refused;

/// What the page may load and do: its own files, and requests to its own server.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The routes of the page: method and path, as the OpenAPI file has them.
pub const PAGES: &[(&str, &str)] = &[("GET", "/"), ("GET", "/dashboard/{file}")];

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its name below `/dashboard/`; `index.html` is at `/` too.
    pub name: &'static str,
    /// Its media type.
    pub media: &'static str,
    /// What is in it.
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal $media:literal;)*) => {
        /// The files of the page; the first one is the page itself.
        pub const FILES: &[File] =
            &[$(File { name: $name, media: $media, text: include_str!(concat!("dashboard/", $name)) }),*];
    };
}

files! {
    "index.html"   "text/html; charset=utf-8";
    "style.css"    "text/css; charset=utf-8";
    "icon.svg"     "image/svg+xml";
    "main.js"      "text/javascript; charset=utf-8";
    "api.js"       "text/javascript; charset=utf-8";
    "dom.js"       "text/javascript; charset=utf-8";
    "picture.js"   "text/javascript; charset=utf-8";
    "slices.js"    "text/javascript; charset=utf-8";
    "settings.js"  "text/javascript; charset=utf-8";
    "functions.js" "text/javascript; charset=utf-8";
    "rules.js"     "text/javascript; charset=utf-8";
    "said.js"      "text/javascript; charset=utf-8";
    "faults.js"    "text/javascript; charset=utf-8";
}

/// The headers of every file.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The page; it needs no token.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(async || answer("index.html")))
        .route("/dashboard/{file}", get(file))
        .method_not_allowed_fallback(async || Refused::method())
}

async fn file(name: Result<Path<String>, PathRejection>) -> Response {
    answer(name.as_ref().map_or("", |Path(name)| name))
}

fn answer(name: &str) -> Response {
    match FILES.iter().find(|f| f.name == name) {
        Some(f) => (HEADERS, [(header::CONTENT_TYPE, f.media)], f.text).into_response(),
        None => Refused::new(StatusCode::NOT_FOUND, "no such file").into_response(),
    }
}

/// The page's address for a browser on this machine. With a token it needs to ask for none.
pub fn link(address: SocketAddr, token: Option<&str>) -> String {
    // What listens on every address listens on this one.
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut link = format!("http://{}/", SocketAddr::new(host, address.port()));
    if let Some(token) = token {
        link += "#token=";
        for b in token.bytes() {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => link.push(char::from(b)),
                _ => {
                    let _ = write!(link, "%{b:02X}");
                }
            }
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_for_this_machine_and_hide_no_character() {
        let link = |address: &str, token| link(address.parse().unwrap(), token);
        assert_eq!(link("127.0.0.1:9090", None), "http://127.0.0.1:9090/");
        assert_eq!(link("0.0.0.0:1", Some("ab-1")), "http://127.0.0.1:1/#token=ab-1");
        assert_eq!(link("[::]:1", Some("a b&#")), "http://[::1]:1/#token=a%20b%26%23");
    }
}
