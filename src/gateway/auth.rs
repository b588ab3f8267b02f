//! Decides who sends a request and whether they may: by the host name that the request is for, by the page that it came
//! from, and by the token or session that it carries. No other module looks at these.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use zeroize::Zeroizing;

use super::csrf::{Hosts, Refusal, check_origin, check_page, is_from_browser, is_safe};
use super::dav::ROUTES;
use super::sessions::{LIFETIME, Sessions, random_word};
use super::tokens::{Token, TokenFile, Tokens};
use super::{Access, HttpProblem, ListenAt, ServeOptions, Session};
use crate::crypto;
use crate::types::Hash;

/// The longest token or cookie that is looked at.
const CREDENTIAL_MAX: usize = 256;

/// The response to a request that is refused.
pub(super) struct Rejection(pub Box<Response>);

impl Rejection {
    fn with(response: impl IntoResponse) -> Self {
        Self(Box::new(response.into_response()))
    }
}

/// Admits or refuses every request.
pub(super) struct Gate {
    open: bool,
    tls: bool,
    /// Whether HTTP Basic may carry a token as its password: over TLS, or where the traffic stays on this machine.
    basic: bool,
    hosts: Hosts,
    tokens: TokenFile,
    sessions: Sessions,
    /// The CSRF word in forms that belong to no session: all forms under `--open`, and the log-in form. A page of
    /// another site can make a browser send a form, but cannot read our pages, so it does not know the word.
    word: String,
    cookie: String,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// Nothing.
    Nothing,
    /// A token or a session that we know.
    Somebody,
    /// A token or session that allows this request: read access for safe methods, write access for all others.
    Access,
}

/// How a request shows who sends it.
enum AuthMethod {
    /// Not at all, and nobody needs to: `--open`.
    Open,
    /// A bearer token.
    Bearer,
    /// A token as the password of HTTP Basic. A browser repeats it on its own.
    Basic,
    /// The cookie of a session.
    Cookie,
}

impl Gate {
    pub(super) fn new(options: &ServeOptions, at: &ListenAt) -> Self {
        let tls = options.tls.is_some();
        // Cookies are shared by all ports of a machine; two services there must not log each other out.
        let port = match at {
            ListenAt::Tcp(address) => address.port().to_string(),
            ListenAt::Unix(_) => "socket".to_owned(),
        };
        let prefix = if tls { "__Host-" } else { "" };
        Self {
            open: options.open,
            tls,
            basic: tls || at.is_local(),
            hosts: Hosts::new(at, &options.hosts, options.open),
            tokens: TokenFile::new(options.tokens.clone()),
            sessions: Sessions::default(),
            word: random_word(),
            cookie: format!("{prefix}s3vault_session_{port}"),
        }
    }

    /// The CSRF word of the log-in form.
    pub(super) fn word(&self) -> &str {
        &self.word
    }

    /// Lets a request through and puts its [`Session`], if any, into its extensions; otherwise returns the refusal.
    pub(super) fn admit(&self, request: &mut Request, needs: Requirement) -> Result<(), Rejection> {
        let (headers, method) = (request.headers(), request.method());
        let asked_for = self.hosts.asked_for(request.uri(), headers).map_err(refused)?;
        if is_safe(method) {
            check_page(headers, request.uri(), &asked_for, self.tls).map_err(refused)?;
        } else {
            check_origin(headers, &asked_for, self.tls).map_err(refused)?;
        }
        let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
        let within = |token: &Token| {
            token.scope().is_none_or(|scope| scope.allows(route, request.uri(), headers))
        };
        let is_dav = ROUTES.contains(&route);
        let who = self.who(headers, within, is_dav)?;
        let Some((session, by)) = who else {
            if needs == Requirement::Nothing {
                return self.check_word(request, &self.word, false);
            }
            let page = *method == Method::GET && accepts_html(headers);
            return Err(if page {
                Rejection::with(Redirect::to("/login"))
            } else {
                self.unknown(false, is_dav)
            });
        };
        // Only programs send a bearer token. Any other request may be a form, which must carry our CSRF word. (A
        // program may send a password too, but does not look like a browser.)
        let cookie = matches!(by, AuthMethod::Cookie);
        if !matches!(by, AuthMethod::Bearer) {
            self.check_word(request, &session.csrf, cookie)?;
        }
        let access = if is_safe(request.method()) { Access::Read } else { Access::Write };
        if needs == Requirement::Access && session.access < access {
            let text = "This token is read-only; changing anything needs one made with --write.";
            return Err(Rejection::with(HttpProblem::new(
                StatusCode::FORBIDDEN,
                "read_only_token",
                text,
            )));
        }
        request.extensions_mut().insert(session);
        Ok(())
    }

    /// Refuses a browser's request to change something if it lacks the CSRF word that our pages put into their forms.
    fn check_word(&self, request: &Request, word: &str, cookie: bool) -> Result<(), Rejection> {
        let headers = request.headers();
        if is_safe(request.method()) || !cookie && !is_from_browser(headers) {
            return Ok(());
        }
        let header = headers.get("x-csrf-token").and_then(|value| value.to_str().ok());
        let query =
            || request.uri().query()?.split('&').find_map(|pair| pair.strip_prefix("csrf="));
        // `POST /login` has no session yet, though the browser may hold a cookie of one: the log-in form carries
        // `self.word`.
        let login = request.uri().path() == "/login";
        match header.or_else(query) {
            Some(given) if same(given, word) || login && same(given, &self.word) => Ok(()),
            _ => {
                let text = "This form is out of date, or was not made by this service. Load the page again.";
                Err(Rejection::with(HttpProblem::new(StatusCode::FORBIDDEN, "csrf", text)))
            }
        }
    }

    /// Who sends this; `None` if the request does not say.
    fn who(
        &self,
        headers: &HeaderMap,
        within: impl Fn(&Token) -> bool,
        is_dav: bool,
    ) -> Result<Option<(Session, AuthMethod)>, Rejection> {
        if self.open {
            let csrf = self.word.clone();
            return Ok(Some((
                Session {
                    access: Access::Write,
                    name: None,
                    csrf,
                    token: None,
                    only: None,
                    ends: None,
                },
                AuthMethod::Open,
            )));
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let wrong = || self.unknown(true, is_dav);
            let password = if is_dav { password(value) } else { None };
            let (secret, by) = match (bearer(value), &password) {
                (Some(secret), _) => (secret, AuthMethod::Bearer),
                (None, Some(_)) if !self.basic => return Err(in_the_clear()),
                (None, Some(secret)) => (secret.as_str(), AuthMethod::Basic),
                (None, None) => return Err(wrong()),
            };
            let tokens = self.tokens()?;
            let token = tokens.by_secret(secret).ok_or_else(wrong)?;
            // A word that nobody knows: none of our pages logs in with a password, so a change that a browser sends
            // this way is refused.
            let csrf = random_word();
            return Ok(Some((session(token, csrf, within)?, by)));
        }
        let Some((hash, csrf)) = self.cookie(headers).and_then(|value| self.sessions.find(value))
        else {
            return Ok(None);
        };
        // A session is worth no more than its token, which may have been removed.
        let tokens = self.tokens()?;
        let Some(token) = tokens.by_hash(&hash) else { return Ok(None) };
        Ok(Some((session(token, csrf, within)?, AuthMethod::Cookie)))
    }

    /// Whether a token is still good. While the token file cannot be read, nobody new is let in and nobody is thrown
    /// out.
    pub(super) fn is_known(&self, token: &Hash) -> bool {
        self.tokens.now().map_or(true, |tokens| tokens.by_hash(token).is_some())
    }

    fn tokens(&self) -> Result<Arc<Tokens>, Rejection> {
        self.tokens.now().map_err(|error| {
            tracing::error!(%error, "the file of the tokens cannot be used; nobody is let in");
            Rejection::with(HttpProblem::unavailable(
                "The server cannot read its tokens, so nobody is let in; its log says why.",
                10,
            ))
        })
    }

    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';'));
        let value = pairs
            .find_map(|pair| pair.trim().strip_prefix(self.cookie.as_str())?.strip_prefix('='))?;
        (value.len() <= CREDENTIAL_MAX).then_some(value)
    }

    /// Opens a session for the token with this secret and redirects to the page; `None` if there is no such token.
    pub(super) fn log_in(&self, secret: &str) -> Result<Option<Response>, Rejection> {
        let secret = secret.trim();
        let known = match secret.len() <= CREDENTIAL_MAX {
            true => self.tokens()?.by_secret(secret).map(|token| token.hash),
            false => None,
        };
        Ok(known.map(|hash| {
            let value = self.sessions.open(hash);
            self.with_cookie("/", &value, LIFETIME.as_secs())
        }))
    }

    /// Ends the session and redirects to the log-in form.
    pub(super) fn log_out(&self, headers: &HeaderMap) -> Response {
        if let Some(value) = self.cookie(headers) {
            self.sessions.close(value);
        }
        self.with_cookie("/login", "", 0)
    }

    fn with_cookie(&self, to: &str, value: &str, seconds: u64) -> Response {
        let secure = if self.tls { "; Secure" } else { "" };
        let cookie = format!(
            "{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}",
            self.cookie
        );
        let mut response = Redirect::to(to).into_response();
        // Hex digits and our own words are always a valid header value.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    /// Whether the service is open, so that nobody logs in.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The number of tokens; 0 also when they cannot be read.
    pub(super) fn token_count(&self) -> usize {
        self.tokens.now().map_or(0, |tokens| tokens.iter().count())
    }
}

/// What a token allows, if the request is within the token's scope.
fn session(
    token: &Token,
    csrf: String,
    within: impl Fn(&Token) -> bool,
) -> Result<Session, Rejection> {
    if !within(token) {
        return Err(Rejection::with(HttpProblem::out_of_scope()));
    }
    let (access, name, hash) = (token.access, Some(token.name.clone()), Some(token.hash));
    let (only, ends) = (token.scope().cloned(), token.expires());
    Ok(Session { access, name, csrf, token: hash, only, ends })
}

/// Compares in a time that does not depend on how many bytes are equal.
fn same(given: &str, own: &str) -> bool {
    let hash = |text: &str| -> Hash { crypto::sha256(text.as_bytes()) };
    given.len() <= CREDENTIAL_MAX && crypto::same(&hash(given), &hash(own))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && secret.len() <= CREDENTIAL_MAX;
    fits.then(|| secret.trim())
}

/// The password of HTTP Basic (RFC 7617). The user name is ignored.
fn password(value: &HeaderValue) -> Option<Zeroizing<String>> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("basic") && encoded.len() <= 4 * CREDENTIAL_MAX;
    let decoded = fits.then(|| data_encoding::BASE64.decode(encoded.trim().as_bytes()))?.ok()?;
    let text = Zeroizing::new(String::from_utf8(decoded).ok()?);
    let secret = text.split_once(':').map(|(_, password)| password.trim().to_owned())?;
    (secret.len() <= CREDENTIAL_MAX).then(|| Zeroizing::new(secret))
}

/// 403: a password that anybody on the network path could have read.
fn in_the_clear() -> Rejection {
    Rejection::with(HttpProblem::new(
        StatusCode::FORBIDDEN,
        "basic_needs_tls",
        "A token as a password (HTTP Basic) is taken over TLS, on loopback addresses and at Unix sockets alone: here \
         others could read it. Start the service with --tls-cert and --tls-key. This token was sent in the clear: \
         make another one.",
    ))
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|types| types.contains("text/html"))
}

impl Gate {
    /// Like [`unknown`], but asks WebDAV clients for a password.
    fn unknown(&self, wrong: bool, is_dav: bool) -> Rejection {
        let mut rejection = unknown(wrong);
        if is_dav && self.basic {
            let basic = HeaderValue::from_static("Basic realm=\"s3vault\", charset=\"UTF-8\"");
            rejection.0.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        rejection
    }
}

/// 401: the request carries no token, or (`wrong`) one that we do not know.
fn unknown(wrong: bool) -> Rejection {
    let text = if wrong {
        "This token is not known, has expired, or was removed. `s3vault serve token list` on the server shows which \
         tokens there are."
    } else {
        "A token is needed: `Authorization: Bearer TOKEN`. One is made on the server with `s3vault serve token add \
         NAME --read-only|--write`."
    };
    let mut response =
        HttpProblem::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response();
    challenge(&mut response, wrong);
    Rejection::with(response)
}

/// Adds to a 401 the header that says how to authenticate.
pub(super) fn challenge(response: &mut Response, wrong: bool) {
    let challenge = if wrong {
        "Bearer realm=\"s3vault\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"s3vault\""
    };
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
}

fn refused(refusal: Refusal) -> Rejection {
    let problem = match refusal {
        Refusal::NoHost => HttpProblem::bad_request(
            "The request does not say which host it is for, or does not say it clearly (the header Host).",
        ),
        Refusal::Host => HttpProblem::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "The service may not be reached by this host name. If it is to be, start it with this option: \
             s3vault serve --host NAME.",
        ),
        Refusal::Origin => HttpProblem::new(
            StatusCode::FORBIDDEN,
            "cross_origin",
            "A page of another site sent this request. Only the service's own page, and programs, may ask for \
             anything; a link elsewhere may lead to the page.",
        ),
    };
    Rejection::with(problem)
}
