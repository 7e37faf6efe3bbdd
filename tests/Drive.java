// Asks with Java's own client, which offers HTTP/2 with every request over plain HTTP and keeps its connection.
// Arguments: the address, a key, and then for each request its method, path, type and body. Prints status, mark and body.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Drive {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int at = 2; at + 3 < given.length; at += 4) {
            var wanted = HttpRequest.newBuilder(URI.create(given[0] + given[at + 1]))
                .header("Authorization", "Bearer " + given[1])
                .header("X-Request-Id", "java-" + at)
                .header("Accept", "application/json, text/event-stream");
            if (!given[at + 2].isEmpty()) wanted.header("Content-Type", given[at + 2]);
            var body = given[at + 3].isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(given[at + 3]);
            var got = client.send(wanted.method(given[at], body).build(), BodyHandlers.ofString());
            var mark = got.headers().firstValue("X-Request-Id").orElse("none");
            System.out.println(got.statusCode() + " " + mark + " " + got.body().replaceAll("\\s+", " "));
        }
    }
}
