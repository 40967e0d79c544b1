# narvault for Nixpkgs: callPackage ./nix/package.nix { }. Needs a Nixpkgs with Go 1.26 or newer.
{ lib, buildGoModule, src ? lib.cleanSource ../., version ? "unstable" }:

buildGoModule {
  pname = "narvault";
  inherit version src;

  # The NAR hash of what `go mod vendor` makes. `make vendor-hash` writes it, `make test` checks it.
  vendorHash = "sha256-iSVkqW/yJuOQVjhE3qo9nIOE7G8bdfJkkClVCMSkUlc=";

  subPackages = [ "cmd/narvault" ];
  env.CGO_ENABLED = 0;
  ldflags = [ "-s" "-w" "-X main.version=${version}" ];

  # The tests mount file systems and run Nix, which a sandboxed build cannot: `make test` runs them.
  doCheck = false;

  meta = {
    description = "Backs up Nix store paths and Hydra releases into a binary cache that can be mounted";
    homepage = "https://github.com/narvault/narvault";
    license = lib.licenses.asl20;
    mainProgram = "narvault";
    platforms = lib.platforms.linux;
  };
}
