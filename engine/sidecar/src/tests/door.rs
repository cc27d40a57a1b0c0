//! Who is let in, how often and for how long: connections, headers, tokens, rates and TLS through a real listener.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::*;
use crate::{Admission, Readers};

const TOP: &str = "/v1/videos/top?period=hour";
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect(served: &Served, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(served.address).await.unwrap()
}

/// Asks over a connection, which stays open.
async fn ask_on<IO>(stream: &mut IO, path: &str, headers: &str) -> Answer
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
            if answer.header("content-length").unwrap().parse::<usize>().unwrap() == answer.body.len() {
                return answer;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
}

fn ended(metrics: &Answer, reason: &str) -> u64 {
    let name = format!("highwater_http_connections_ended_total{{reason=\"{reason}\"}} ");
    metrics.text().lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

async fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), read).await.is_ok_and(|_| rest.is_empty())
}

#[tokio::test]
async fn who_says_nothing_or_trickles_makes_room_for_who_asks() {
    let limits = HttpLimits { connections_max: 4, ..HttpLimits::default() };
    let served = start(Some(snapshot(1, 1)), limits).await;
    let silent = [connect(&served, HERE).await, connect(&served, HERE).await];
    let mut trickling = connect(&served, ELSEWHERE).await;
    trickling.write_all(b"GET /healthz HTTP/1.1\r\nHos").await.unwrap();
    let unread = connect(&served, ELSEWHERE).await;
    // Every seat is taken, each address has its share, and whoever comes from elsewhere is served in spite of it.
    let mut served_streams = Vec::new();
    for last in 3..7 {
        let mut stream = connect(&served, Ipv4Addr::new(127, 0, 0, last)).await;
        assert_eq!(ask_on(&mut stream, TOP, "").await.status, 200, "{last}");
        served_streams.push(stream);
    }
    let metrics = ask_on(&mut served_streams[3], "/metrics", "").await;
    assert_eq!(ended(&metrics, "made_room"), 4);
    for stream in silent.into_iter().chain([trickling, unread]) {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn an_address_has_its_share_of_the_connections_and_no_more() {
    let limits = HttpLimits { connections_max: 6, ..HttpLimits::default() };
    let served = start(Some(snapshot(1, 1)), limits).await;
    // Three that wait for an epoch are being answered, so none of them makes room.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&served, HERE).await;
        stream.write_all(format!("GET {TOP}&min_epoch=2 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    while served.source.latest.receiver_count() < 3 {
        tokio::task::yield_now().await;
    }
    assert!(is_closed(connect(&served, HERE).await).await);
    let metrics = ask_on(&mut connect(&served, ELSEWHERE).await, "/metrics", "").await;
    assert_eq!((ended(&metrics, "address_share"), ended(&metrics, "made_room")), (1, 0));
    served.source.latest.send_replace(Some(snapshot(2, 1)));
    for mut stream in waiting {
        assert!(stream.read_u8().await.is_ok());
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_or_is_too_large_is_not_waited_for() {
    let limits =
        HttpLimits { header_timeout: Duration::from_millis(300), header_bytes_max: 8192, ..HttpLimits::default() };
    let served = start(Some(snapshot(1, 1)), limits).await;
    let answer = get(&served, &format!("/v1/videos/top?period={}", "x".repeat(20_000))).await;
    assert!((414..=431).contains(&answer.status), "{answer:?}");
    let mut slow = connect(&served, HERE).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHos").await.unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    assert_eq!(ended(&get(&served, "/metrics").await, "slow"), 1);
}

#[tokio::test]
async fn a_path_too_long_is_told_the_limit() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    let answer = get(&served, &format!("/v1/videos/top?period={}", "x".repeat(5000))).await;
    assert_eq!((answer.status, answer.header("content-type")), (414, Some("application/problem+json")));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("5022 bytes") && detail.contains("4096"), "{detail}");
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_and_others_are_not() {
    let limits = HttpLimits { requests_per_second_max: NonZeroU32::new(5), ..HttpLimits::default() };
    let served = start(Some(snapshot(1, 1)), limits).await;
    let mut stream = connect(&served, HERE).await;
    let mut refused = None;
    let began = Instant::now();
    let mut answered = 0;
    while refused.is_none() {
        let answer = ask_on(&mut stream, TOP, "").await;
        match answer.status {
            200 => answered += 1,
            _ => refused = Some(answer),
        }
        assert!(answered <= 5 + began.elapsed().as_secs() * 5 + 5, "{answered} answers in {:?}", began.elapsed());
    }
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["type"], "urn:highwater:problem:too-many-requests");
    assert_eq!(ask_on(&mut stream, "/healthz", "").await.status, 200);
    assert_eq!(ask_on(&mut connect(&served, ELSEWHERE).await, TOP, "").await.status, 200);
    let metrics = ask_on(&mut connect(&served, ELSEWHERE).await, "/metrics", "").await;
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"refused\",status=\"429\"} "));
}

struct Book;

impl Readers for Book {
    fn admit(&self, token: &[u8]) -> Admission {
        match token {
            b"reader" => Admission::Admitted,
            b"producer" => Admission::NotReader,
            _ => Admission::Unknown,
        }
    }
}

#[tokio::test]
async fn with_tokens_only_readers_read_and_health_is_for_everyone() {
    let options = HttpOptions { readers: Some(Arc::new(Book)), ..HttpOptions::default() };
    let served = start_with(Some(snapshot(1, 1)), options).await;
    let mut stream = connect(&served, HERE).await;
    for path in [TOP, "/metrics", "/v1/periods?period=day", "/v1/videos/views?video_id=a", "/nothing"] {
        for (headers, status) in [
            ("", 401),
            ("Authorization: Basic cmVhZGVy\r\n", 401),
            ("Authorization: Bearer \r\n", 401),
            ("Authorization: Bearer readers\r\n", 401),
            ("If-None-Match: *\r\n", 401),
            ("Authorization: Bearer producer\r\n", 403),
        ] {
            let answer = ask_on(&mut stream, path, headers).await;
            assert_eq!(answer.status, status, "{path} {headers}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
            assert!(!answer.text().contains("readers"), "{}", answer.text());
        }
        let answer = ask_on(&mut stream, path, "authorization: bearer reader\r\n").await;
        assert!(![401, 403].contains(&answer.status), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask_on(&mut stream, path, "").await.status, 200);
    }
}

fn certificate() -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) =
        (made.cert.der().clone(), PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (certificate, Arc::new(config))
}

async fn shake_hands(
    served: &Served,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connect(served, HERE).await).await
}

#[tokio::test]
async fn over_tls_a_new_certificate_is_for_new_connections() {
    let ((first, config), (second, later)) = (certificate(), certificate());
    let (change, tls) = watch::channel(config);
    let tls: crate::TlsSource = Arc::new(move || tls.borrow().clone());
    let limits = HttpLimits { header_timeout: Duration::from_millis(500), ..HttpLimits::default() };
    let options = HttpOptions { limits, tls: Some(tls), ..HttpOptions::default() };
    let served = start_with(Some(snapshot(1, 1)), options).await;
    let mut stream = shake_hands(&served, &first).await.unwrap();
    assert_eq!(ask_on(&mut stream, TOP, "").await.status, 200);
    change.send_replace(later);
    assert_eq!(ask_on(&mut stream, TOP, "").await.status, 200);
    assert!(shake_hands(&served, &first).await.is_err());
    let mut stream = shake_hands(&served, &second).await.unwrap();
    assert_eq!(ask_on(&mut stream, TOP, "").await.status, 200);
    // Plain HTTP, and half a handshake.
    let mut plain = connect(&served, HERE).await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let mut half = connect(&served, HERE).await;
    half.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    assert!(is_closed(half).await);
    let mut stream = shake_hands(&served, &second).await.unwrap();
    let metrics = ask_on(&mut stream, "/metrics", "").await;
    // Half a handshake is slow; so are connections that ask no more.
    assert_eq!(ended(&metrics, "tls_handshake"), 2);
    assert!(ended(&metrics, "slow") >= 1);
}
