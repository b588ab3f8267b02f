//! A bucket for one test.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::Builder;
use s3vault::testing::store::{Bucket, Deadlines, S3Credentials, S3Options, StoreUrl};

/// The access key of the only identity that the test servers know.
pub const ACCESS_KEY: &str = "s3vault-test";
/// Its secret.
pub const SECRET_KEY: &str = "test-secret-of-s3vault";

/// A bucket for one test, deleted when dropped.
pub struct TestBucket {
    endpoint: String,
    name: String,
}

impl TestBucket {
    /// Makes a bucket on a server, and puts an object, since the first put is slow.
    pub fn new(endpoint: &str) -> Self {
        let name = format!("test-{:016x}", rand::random::<u64>());
        block_on(async {
            let client = test_client(endpoint);
            create_bucket(&client, &name).await.expect("the server makes a bucket");
            let put = client.put_object().bucket(&name).key("warm-up");
            put.body(ByteStream::from_static(b"x")).send().await.expect("the server takes a put");
            let delete = client.delete_object().bucket(&name).key("warm-up");
            delete.send().await.expect("the server deletes");
        });
        Self { endpoint: endpoint.to_owned(), name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `s3://name`.
    pub fn url(&self) -> StoreUrl {
        format!("s3://{}", self.name).parse().expect("a bucket's URL")
    }

    /// How to reach it.
    pub fn options(&self) -> S3Options {
        self.options_through(&self.endpoint)
    }

    /// How to reach it at another address: a proxy's.
    pub fn options_through(&self, endpoint: &str) -> S3Options {
        S3Options {
            endpoint_url: Some(endpoint.to_owned()),
            region: None,
            credentials: Some(S3Credentials {
                access_key: ACCESS_KEY.to_owned(),
                secret_key: SECRET_KEY.to_owned().into(),
                session_token: None,
                expires: None,
            }),
        }
    }

    /// The environment in which `s3vault` reaches it; the endpoint goes on the command line.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
    }

    /// Opens it in the same way as the program.
    pub async fn open(&self) -> Bucket {
        let opened = Bucket::open(&self.url(), &self.options(), Deadlines::default()).await;
        opened.expect("the bucket opens")
    }

    /// All its objects, by name.
    pub fn objects(&self) -> Vec<(String, bytes::Bytes)> {
        block_on(async {
            let bucket = self.open().await;
            let (listed, _) = bucket.list_all("").await.expect("the bucket lists");
            let mut objects = Vec::new();
            for object in listed {
                let bytes = bucket.get(&object.name, None).await.expect("the object is there");
                objects.push((object.name, bytes));
            }
            objects
        })
    }
}

impl Drop for TestBucket {
    fn drop(&mut self) {
        let (endpoint, name) = (self.endpoint.clone(), self.name.clone());
        // In a runtime of its own, since the test may have one. SeaweedFS deletes a bucket with its objects; other
        // servers keep theirs in a directory that is removed with them.
        block_on(async move {
            let client = test_client(&endpoint);
            let delete = client.delete_bucket().bucket(name).send();
            let _ = tokio::time::timeout(Duration::from_secs(60), delete).await;
        });
    }
}

/// A plain S3 client, independent of the program.
pub fn test_client(endpoint: &str) -> Client {
    use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(endpoint)
        .force_path_style(true)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .build();
    Client::from_conf(config)
}

/// Makes a bucket, or accepts an existing one.
pub async fn create_bucket(client: &Client, name: &str) -> Result<(), String> {
    match client.create_bucket().bucket(name).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.raw_response().is_some_and(|r| r.status().as_u16() == 409) => Ok(()),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// Runs a future in a runtime on a new thread, so that it can be called from anywhere.
pub fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(work)
        });
        thread.join().expect("it does not panic")
    })
}
