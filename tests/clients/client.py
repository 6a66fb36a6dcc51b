"""Calls a server at ADDRESS about the project at ROOT, knowing of its contract only what reflection tells.

Prints what was answered as one JSON object.
"""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address: str, root: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        services = sorted(database.get_services())

        def call(service: str, method: str, **request: object) -> list[object]:
            """All answers of a call, as JSON."""
            described = pool.FindServiceByName(f"pyrightd.v1.{service}").methods_by_name[method]
            make_request = message_factory.GetMessageClass(described.input_type)
            answer = message_factory.GetMessageClass(described.output_type)
            path = f"/pyrightd.v1.{service}/{method}"
            kind = channel.unary_stream if described.server_streaming else channel.unary_unary
            stub = kind(path, request_serializer=make_request.SerializeToString, response_deserializer=answer.FromString)
            answers = stub(make_request(**request), timeout=100)
            answers = answers if described.server_streaming else [answers]
            return [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in answers]

        def refused(service: str, method: str, **request: object) -> str:
            """The code that a call fails with."""
            try:
                return f"answered: {call(service, method, **request)}"
            except grpc.RpcError as error:
                return error.code().name

        health = health_pb2_grpc.HealthStub(channel)
        names = "SELECTOR_NAMES"
        answers = {
            "services": services,
            "one": call("ExportService", "ExportLocations", project_root=root, file={"path": "a.py", "selector": names}),
            "many": call("ExportService", "ExportFiles", project_root=root, default_selector=names),
            "projects": call("ProjectService", "ListProjects"),
            "refused": refused("ExportService", "ExportLocations", project_root="relative"),
            "health": {
                service: health_pb2.HealthCheckResponse.ServingStatus.Name(
                    health.Check(health_pb2.HealthCheckRequest(service=service), timeout=100).status
                )
                for service in ["", *(service for service in services if service.startswith("pyrightd."))]
            },
        }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
