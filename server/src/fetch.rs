//! Pictures by URL: from hosts that the operator names, and from no address inside of a network.
//!
//! A name that is on the list may still stand for an address of the machine itself or of its network, be it
//! in DNS, behind a redirect, or written as a number. So every address that a name stands for is looked at
//! after it was resolved, and the connection goes to one of the addresses that were looked at.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use crate::error::ApiError;

/// How long fetching a picture takes at most.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most redirects that are followed for one picture.
const MOST_REDIRECTS: usize = 3;

/// The largest picture that is fetched.
const MOST_BYTES: u64 = 20_000_000;

/// Which pictures are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// Hosts, by name, `*.example.org` for all below `example.org`; nothing is fetched where there are none.
    /// Other ports than 80 and 443 have to be said, as in `pictures.example.org:8080`.
    pub hosts: Vec<String>,
    /// Whether addresses of private networks and of the machine itself are fetched from, too. Link-local
    /// ones, where clouds keep their secrets, never are.
    pub private: bool,
}

/// Fetches pictures.
#[derive(Debug)]
pub(crate) struct Fetcher {
    hosts: Vec<String>,
    agent: Agent,
}

impl Fetcher {
    pub(crate) fn new(options: &FetchOptions) -> Self {
        let config = Config::builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(0)
            // A proxy would resolve names itself.
            .proxy(None)
            .accept("image/*")
            .user_agent(concat!("multiway/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Outside {
            private: options.private,
            inner: DefaultResolver::default(),
        };
        Self {
            hosts: options
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            agent: Agent::with_parts(config, DefaultConnector::default(), resolver),
        }
    }

    /// Fetches a picture, which takes a while: for a thread that may wait. `param` is the field of its URL.
    pub(crate) fn fetch(&self, url: &str, param: &str) -> Result<Vec<u8>, ApiError> {
        let wrong = |why: String| ApiError::field(param, format!("{param}: {why}"));
        let mut uri: Uri = url
            .parse()
            .map_err(|error| wrong(format!("'{}' is no URL: {error}", shortened(url))))?;
        let end = Instant::now() + TIMEOUT;
        for _ in 0..=MOST_REDIRECTS {
            self.check(&uri).map_err(wrong)?;
            let left = end.saturating_duration_since(Instant::now());
            // Zero would be no limit.
            let left = left.max(Duration::from_millis(1));
            let request = self.agent.get(&uri).config().timeout_global(Some(left)).build();
            let answer = request.call();
            let mut answer = answer.map_err(|error| wrong(said(&uri, &error)))?;
            if answer.status().is_redirection() {
                let place = answer.headers().get(header::LOCATION);
                let place = place.and_then(|place| place.to_str().ok()).unwrap_or_default();
                uri = next(&uri, place).ok_or_else(|| wrong(format!("{} redirects nowhere", host(&uri))))?;
                continue;
            }
            if !answer.status().is_success() {
                let status = answer.status();
                return Err(wrong(format!("{} answered {status}", host(&uri))));
            }
            let mut bytes = Vec::new();
            // One byte more than is taken tells that there are too many.
            let read = answer
                .body_mut()
                .as_reader()
                .take(MOST_BYTES + 1)
                .read_to_end(&mut bytes);
            read.map_err(|error| wrong(format!("{} broke off: {error}", host(&uri))))?;
            if bytes.len() as u64 > MOST_BYTES {
                return Err(wrong(format!("the picture has more than {MOST_BYTES} bytes")));
            }
            return Ok(bytes);
        }
        Err(wrong(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// Checks that a URL is one of those that are fetched.
    fn check(&self, uri: &Uri) -> Result<(), String> {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        if !is_http || has_user {
            return Err("expected a URL of a picture as http(s)://HOST/PATH, or a data URL".to_owned());
        }
        let name = host(uri).to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let port = uri.port_u16();
        let is_listed = self.hosts.iter().any(|listed| is_of(listed, name, port));
        match is_listed {
            true => Ok(()),
            false if self.hosts.is_empty() => Err(
                "this server fetches nothing: expected a picture as `data:image/png;base64,...`".to_owned(),
            ),
            false => Err(format!(
                "this server fetches pictures from {} alone, found '{}'",
                self.hosts.join(", "),
                uri.authority().map_or(name, |authority| authority.as_str())
            )),
        }
    }
}

/// Tells whether a name and a port are those of an entry of the list.
fn is_of(listed: &str, name: &str, port: Option<u16>) -> bool {
    let with_port = listed.rsplit_once(':');
    let with_port = with_port.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, is_port) = match with_port {
        Some((host, listed)) => (host, port == Some(listed)),
        None => (listed, matches!(port, None | Some(80 | 443))),
    };
    let is_host = match host.strip_prefix("*.") {
        Some(above) => name
            .strip_suffix(above)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => name == host,
    };
    is_port && is_host
}

fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default()
}

fn shortened(url: &str) -> String {
    url.chars().take(80).collect()
}

/// Says what went wrong, with no more of the network than the name that was asked for.
fn said(uri: &Uri, error: &Error) -> String {
    match error {
        Error::HostNotFound => format!("{} has no address that this server fetches from", host(uri)),
        Error::Timeout(_) => format!("{} took longer than {} seconds", host(uri), TIMEOUT.as_secs()),
        error => format!("{} cannot be read: {error}", host(uri)),
    }
}

/// Reads where a redirect leads: a whole URL, or a path on the same host.
fn next(from: &Uri, place: &str) -> Option<Uri> {
    if !place.starts_with('/') || place.starts_with("//") {
        return place.parse().ok().filter(|uri: &Uri| uri.scheme().is_some());
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    format!("{scheme}://{authority}{place}").parse().ok()
}

/// Resolves names to addresses outside of the machine and its network.
#[derive(Debug)]
struct Outside {
    private: bool,
    inner: DefaultResolver,
}

impl Resolver for Outside {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found
            .iter()
            .filter(|address| may_reach(address.ip(), self.private))
        {
            kept.push(*address);
        }
        match kept.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(kept),
        }
    }
}

/// Tells whether an address may be fetched from. `private` lets addresses of the machine and of private
/// networks pass.
///
/// Source: the special-purpose address registries of IANA (RFC 6890).
fn may_reach(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(address) => may_reach_v4(address, private),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => may_reach_v4(address, private),
            None => may_reach_v6(address, private),
        },
    }
}

fn may_reach_v4(address: Ipv4Addr, private: bool) -> bool {
    let [a, b, c, _] = address.octets();
    let is_own = address.is_private() || address.is_loopback() || (a == 100 && (64..128).contains(&b));
    // Where clouds answer besides link-local addresses.
    let is_cloud = [[100, 100, 100, 200], [168, 63, 129, 16]].contains(&address.octets());
    let is_never = is_cloud
        || a == 0
        || a >= 224
        || address.is_link_local()
        || address.is_documentation()
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (18..20).contains(&b));
    !is_never && (private || !is_own)
}

fn may_reach_v6(address: Ipv6Addr, private: bool) -> bool {
    let [a, b, ..] = address.segments();
    if (a, b) == (0xfd00, 0x0ec2) {
        return false;
    }
    if address.is_loopback() || address.is_unique_local() {
        return private;
    }
    // Global unicast, without documentation and what carries an address of the other kind (Teredo, 6to4).
    let is_global = (0x2000..0x4000).contains(&a);
    is_global && !(a == 0x2001 && (b == 0 || b == 0x0db8)) && a != 0x2002 && a != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetcher(hosts: &[&str], private: bool) -> Fetcher {
        Fetcher::new(&FetchOptions {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            private,
        })
    }

    /// Fetches from a port of this machine.
    fn local(port: u16) -> Fetcher {
        fetcher(&[&format!("localhost:{port}")], true)
    }

    fn refused(fetcher: &Fetcher, url: &str) -> String {
        fetcher.fetch(url, "url").unwrap_err().to_json().to_string()
    }

    /// Answers requests with whole answers, one after the other, on a port of its own.
    fn answers(answers: Vec<String>) -> u16 {
        use std::io::Write as _;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked);
                let _ = stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes());
            }
        });
        port
    }

    const PICTURE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfour";

    fn redirect(place: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    #[test]
    fn a_listed_host_is_fetched_from_and_its_redirects_are_followed() {
        let port = answers(vec![redirect("/there"), PICTURE.to_owned()]);
        let bytes = local(port).fetch(&format!("http://localhost:{port}/a.png"), "url");
        assert_eq!(bytes.unwrap(), b"four");
    }

    #[test]
    fn other_hosts_and_schemes_are_refused_before_anything_is_sent() {
        let listed = fetcher(&["pictures.test", "*.cdn.test"], true);
        for url in [
            "http://localhost/",
            "http://pictures.test.evil.test/",
            "http://evilcdn.test/",
            "http://cdn.test/",
            "http://pictures.test@localhost/",
        ] {
            let message = refused(&listed, url);
            assert!(
                message.contains("alone") || message.contains("expected a URL"),
                "{url}: {message}"
            );
        }
        for url in ["file:///etc/passwd", "ftp://pictures.test/a", "//pictures.test/a"] {
            let message = refused(&listed, url);
            assert!(
                message.contains("expected a URL") || message.contains("is no URL"),
                "{url}: {message}"
            );
        }
        for url in ["http://pictures.test:8080/a", "https://a.cdn.test:1/b"] {
            assert!(refused(&listed, url).contains("alone"), "{url}");
        }
        for url in [
            "http://PICTURES.test./a",
            "https://a.cdn.test/b",
            "http://pictures.test:443/",
        ] {
            assert_eq!(listed.check(&url.parse().unwrap()), Ok(()), "{url}");
        }
        assert!(refused(&fetcher(&[], true), "http://localhost/").contains("fetches nothing"));
    }

    #[test]
    fn a_redirect_to_another_host_is_refused() {
        let port = answers(vec![redirect("http://127.0.0.1:PORT/secret"), PICTURE.to_owned()]);
        let message = refused(&local(port), &format!("http://localhost:{port}/"));
        assert!(message.contains("alone, found '127.0.0.1:"), "{message}");
    }

    #[test]
    fn redirects_without_end_are_refused() {
        let port = answers(vec![redirect("/again"); 8]);
        let message = refused(&local(port), &format!("http://localhost:{port}/"));
        assert!(message.contains("more than 3 redirects"), "{message}");
    }

    #[test]
    fn listed_names_of_private_addresses_are_refused_however_they_are_written() {
        let hosts = [
            "localhost",
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "127.1",
            "0.0.0.0",
        ];
        let others = [
            "[::1]",
            "[::ffff:127.0.0.1]",
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
        ];
        let port = answers(vec![PICTURE.to_owned(); 20]);
        for host in hosts.into_iter().chain(others) {
            let fetcher = fetcher(&[&format!("{host}:{port}")], false);
            let message = refused(&fetcher, &format!("http://{host}:{port}/"));
            assert!(
                message.contains("has no address") || message.contains("is no URL"),
                "{host}: {message}"
            );
        }
    }

    #[test]
    fn addresses_are_those_of_the_registries() {
        let reach = |address: &str, private: bool| may_reach(address.parse().unwrap(), private);
        for public in [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(reach(public, false), "{public}");
        }
        for own in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
        ] {
            assert!(!reach(own, false) && reach(own, true), "{own}");
        }
        for never in [
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "fe80::1",
            "ff02::1",
            "::",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::ffff:169.254.1.1",
        ] {
            assert!(!reach(never, true), "{never}");
        }
    }

    #[test]
    fn what_is_no_answer_or_too_much_is_refused() {
        let much = "HTTP/1.1 200 OK\r\ncontent-length: 20000001\r\nconnection: close\r\n\r\n".to_owned();
        let port = answers(vec![
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            redirect("nowhere"),
            much + &"0".repeat(20_000_001),
        ]);
        let fetcher = local(port);
        let url = format!("http://localhost:{port}/");
        assert!(refused(&fetcher, &url).contains("404"));
        assert!(refused(&fetcher, &url).contains("redirects nowhere"));
        assert!(refused(&fetcher, &url).contains("more than 20000000 bytes"));
    }
}
