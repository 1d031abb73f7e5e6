"""The server's ports: gRPC without or with TLS, then REST.

After model_servers/server.cc, the end of BuildAndStart. If gRPC cannot listen, the server ends; if REST cannot, the
server logs an error.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from servingrepo.embedded import metrics, startup
from servingrepo.embedded.health import health_handler
from servingrepo.embedded.http_side import serve_http
from servingrepo.embedded.inference import Options
from servingrepo.embedded.rest import RestApi
from servingrepo.embedded.services import Parts, handlers
from servingrepo.embedded.status import Status, invalid
from servingrepo.embedded.text_files import read_metrics_path, read_ssl

if TYPE_CHECKING:
    from socketserver import BaseServer

    from servingrepo.embedded.flags import Arguments

__all__ = ["SslConfigError", "open_grpc", "open_rest"]

logger = logging.getLogger(__name__)

REQUEST_THREADS = 64
MAX_MESSAGE = 2**31 - 1  # builder.SetMaxMessageSize, server.cc
ONLY_UNCOMPRESSED = 1 << grpc.Compression.NoCompression.value


class SslConfigError(Exception):
    """--ssl_config_file cannot be read: the process must abort, as the real server does (TF_CHECK_OK)."""


def open_grpc(arguments: Arguments, parts: Parts) -> grpc.Server | Status:
    """Start to answer gRPC.

    Raises:
        SslConfigError: The TLS settings cannot be read.
    """
    threads = arguments.number("grpc_max_threads")
    credentials = _credentials(arguments)
    if isinstance(credentials, Status):
        return credentials
    served = handlers(parts)
    if arguments.truth("enable_grpc_healthcheck_service"):
        served.append(health_handler())
    server = grpc.server(
        ThreadPoolExecutor(threads if threads > 0 else REQUEST_THREADS),
        handlers=served,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", -1),
            # A compressed megabyte may unpack to a gigabyte. The real server unpacks it.
            ("grpc.compression_enabled_algorithms_bitset", ONLY_UNCOMPRESSED),
            # With SO_REUSEPORT two servers would share the port and the requests.
            ("grpc.so_reuseport", 0),
        ],
    )
    addresses = startup.addresses(arguments)
    for address in addresses:
        try:
            if credentials is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, credentials)
        except RuntimeError as error:
            return startup.cannot_listen(address, error)
    server.start()
    with_tls = "" if credentials is None else " with TLS"
    logger.info("listening on %s%s", " and ".join(addresses), with_tls)
    return server


def open_rest(arguments: Arguments, parts: Parts) -> BaseServer | Status | None:
    """Start to answer REST. Return None without REST, and a Status if the server must not start."""
    port = arguments.number("rest_api_port")
    if not port:
        if arguments.text("monitoring_config_file"):
            logger.warning("--monitoring_config_file has no effect without --rest_api_port")
        return None
    if port == arguments.number("port"):
        logger.error(
            "server_options.http_port cannot be same as grpc_port. Please use a different port for "
            "HTTP/REST API. Skipped exporting HTTP/REST API."
        )
        return None
    file = arguments.text("monitoring_config_file")
    metrics_path = read_metrics_path(file, metrics.DEFAULT_PATH) if file else ""
    if isinstance(metrics_path, Status):
        return metrics_path
    api = RestApi(
        core=parts.core,
        # JSON is made from typed fields: with this option the real server reads past their end.
        options=Options(check_method_name=parts.options.check_method_name),
        metrics=parts.metrics,
        timeout_ms=max(arguments.number("rest_api_timeout_in_ms"), 0),
        cors=arguments.truth("rest_api_enable_cors_support"),
        metrics_path=metrics_path,
    )
    threads = arguments.number("rest_api_num_threads")
    host = arguments.text("bind_address")
    try:
        server = serve_http(
            api, host, port, threads=threads if threads > 0 else 4 * (os.cpu_count() or 1)
        )
    except (OSError, OverflowError) as error:
        logger.error("Failed to start HTTP Server at %s:%d: %s", host, port, error)  # noqa: TRY400
        return None
    logger.info("Exporting HTTP/REST API at:%s:%d ...", host, port)
    if arguments.text("ssl_config_file"):
        logger.warning(
            "TLS is for gRPC only: REST is answered in the clear, as TensorFlow Serving does"
        )
    return server


def _credentials(arguments: Arguments) -> Any | Status | None:
    file = arguments.text("ssl_config_file")
    if not file:
        return None
    config = read_ssl(file)
    if isinstance(config, Status):
        raise SslConfigError(str(config))
    if config.client_verify and not config.custom_ca:
        # gRPC would start, and then let no client in.
        return invalid(
            f"{file} has client_verify without a custom_ca that client certificates could be checked with"
        )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
